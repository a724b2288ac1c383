"""The judgement of predicted Dice: numbers by hand, thirds, and folds."""

import numpy as np
import pytest
from test_compare import write_run
from test_folds import rows_of_fold

from unc_jax.review import dice_map, prediction_errors, quality
from unc_jax.review.prediction_errors import Judged
from unc_jax.study import cases_table, folds, run_folder, tables
from unc_jax.study.case_columns import EVALUATION_COLUMNS

NAN = float("nan")


def judged_by_hand(dice, predicted, lower, volumes=None, validation=(0.9, 0.85)):
    rows = [
        cases_table.new_row(
            EVALUATION_COLUMNS, case=f"c{i}", volume_ml=volumes[i] if volumes else i
        )
        for i in range(len(dice))
    ]
    arrays = (np.array(one, float) for one in (dice, predicted, lower))
    return Judged(rows, *arrays, 0.9, np.array(validation))


def test_numbers_by_hand():
    run = judged_by_hand(
        [0.9, 0.8, 0.7, NAN], [0.8, 0.8, 0.9, 0.8], [0.7, 0.7, 0.8, 0.7]
    )
    found = prediction_errors.describe([run])
    one = found["groups"]["all"]
    assert one["n"] == [3]
    assert one["dice"]["mean"] == pytest.approx(0.8)
    assert one["mae"]["mean"] == pytest.approx(0.1)  # (0.1 + 0 + 0.2) / 3
    assert one["bias"]["mean"] == pytest.approx(0.1 / 3)  # (-0.1 + 0 + 0.2) / 3
    assert one["pearson"]["mean"] == pytest.approx(-np.sqrt(3) / 2)
    assert one["spearman"]["mean"] == pytest.approx(-np.sqrt(3) / 2)
    assert one["coverage"]["mean"] == pytest.approx(2 / 3)
    assert one["width"]["mean"] == pytest.approx(0.1)
    # Of the validation cases half miss 0.9, which is no exception too many.
    assert found["failure_dice"] == 0.9
    assert one["failure_auroc"]["failures"] == [2]
    assert prediction_errors.failure_dice(np.array([0.85, 0.85, 0.95])) == 0.8
    # A case without a Dice is none that passed.
    assert prediction_errors.failure_dice(np.array([0.85, 0.85, 0.95, NAN])) == 0.8
    assert prediction_errors.failure_dice(np.array([0.95, 0.95, NAN, NAN, NAN])) == 0.9
    assert prediction_errors.failure_dice(np.array([NAN])) == 0.5


def test_cases_without_a_bound_are_not_judged():
    """An empty mask has no U_labelled; the map would take it for the worst."""
    rows = [
        cases_table.new_row(
            EVALUATION_COLUMNS, case=f"{split}{i}", split=split, status="ok",
            dice=0.9 - i / 50, d_pw=0.9 - i / 50, cv=1.0 + i, u_labelled=0.1 + i / 50,
        )
        for split in ("train", "validation", "test")
        for i in range(6)
    ]  # fmt: skip
    rows[-1] |= {"u_labelled": None, "dice": 0.0}
    found = prediction_errors.judged(rows, quality.fit(rows))
    assert np.isfinite(found.predicted).tolist() == [True] * 5 + [False]
    assert prediction_errors.describe([found])["groups"]["all"]["n"] == [5]
    without = quality.fit(rows, measures=["d_pw"])
    assert np.isfinite(prediction_errors.judged(rows, without).predicted).all()


def test_thirds_are_of_the_volume():
    dice = [0.5, 0.9, 0.6, 0.8, 0.7, 0.4]
    run = judged_by_hand(dice, dice, dice, volumes=[3, 1, 2, 9, 8, 7])
    groups = prediction_errors.describe([run])["groups"]
    assert [one["n"] for one in groups.values()] == [[6], [2], [2], [2]]
    means = [one["dice"]["mean"] for one in groups.values()]
    assert means == pytest.approx([0.65, 0.75, 0.45, 0.75])


def test_few_failures_have_no_auroc_and_seeds_are_averaged():
    dice = np.linspace(0.5, 0.95, 16)
    one = judged_by_hand(dice, dice, dice - 0.1)
    two = judged_by_hand(dice, dice + 0.04, dice - 0.1, validation=[0.75, 0.65])
    found = prediction_errors.describe([one, two])
    assert found["groups"]["all"]["bias"]["by_seed"] == pytest.approx([0, 0.04])
    assert found["groups"]["all"]["bias"]["mean"] == pytest.approx(0.02)
    assert found["failure_dice"] == 0.8
    models = [{"name": "a", "predicted_dice": found}]
    models += [{"name": "b", "predicted_dice": None}]
    lines = tables.markdown([prediction_errors.table(models)]).splitlines()[-5:]
    assert lines[0].startswith(
        "| a | all | 16 | 0.725 | 0.020 | +0.020 | 1.00 | 1.00 ("
    )
    assert lines[0].endswith("| < 0.8: 1.00 (11, 11) |")
    assert lines[3].endswith("| < 0.8: too few (0, 0) |")
    assert lines[4].startswith("| b | all | not available |  |")


def with_differing_dice(fold):
    def rows(made):
        found = rows_of_fold(fold, 0)(made)
        for i, row in enumerate(found):
            row |= {"dice": 0.6 + 0.01 * i + 0.001 * fold, "dice_scan": None}
            row |= {"cv": 30.0 - i, "d_pw": 0.5 + 0.01 * i}
        return found

    return rows


def test_each_fold_has_a_map_of_its_own(tmp_path):
    runs = [
        run_folder.open_run(
            write_run(
                tmp_path / str(fold),
                rows=with_differing_dice(fold),
                **{"data.fold": fold, "data.split_seed": 0},
            )
        )
        for fold in range(5)
    ]
    (joined,) = folds.join(runs)
    found = prediction_errors.of_runs([joined])
    off = []
    for run in runs:
        model = quality.fit(run.rows)
        test = [row for row in run.rows if row["split"] == "test"]
        off += [dice_map.map_dice(model.map, row) - row["dice"] for row in test]
    assert len(off) == 20
    one = found["groups"]["all"]
    assert one["n"] == [20]
    assert one["bias"]["mean"] == pytest.approx(np.mean(off))
    assert one["mae"]["mean"] == pytest.approx(np.mean(np.abs(off)))
    # One map of all folds' rows would know the test cases.
    assert one["mae"]["mean"] > 0.001
    alone = runs[0]._replace(rows=[r for r in runs[0].rows if r["split"] != "train"])
    assert prediction_errors.of_runs([alone]) is None
