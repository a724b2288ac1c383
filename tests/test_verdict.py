import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from unc_jax.review import dice_map, quality, verdict
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS

RUNS = Path(__file__).parents[1] / "results" / "hippocampus" / "runs"


def rows_of(signal, seed=0, test=60, validation=13, noise=0.05):
    rng = np.random.default_rng(seed)
    rows = []
    splits = ["train"] * 63 + ["validation"] * validation + ["test"] * test
    for index, split in enumerate(splits):
        hard = rng.uniform()
        measured = signal * hard + (1 - signal) * rng.uniform()
        rows.append(
            cases_table.new_row(
                EVALUATION_COLUMNS,
                case=f"c{index}",
                split=split,
                status="ok",
                dice=float(np.clip(0.98 - 0.3 * hard + rng.normal(0, noise), 0, 1)),
                d_pw=1 - measured,
                cv=measured,
                u_labelled=measured,
            )
        )
    return rows


def judge(rows):
    return verdict.judge(rows, quality.fit(rows))


def test_appraisal_by_hand():
    dice = [0.5, 0.95, 0.7, 0.92, np.nan]
    found = verdict.appraise(dice, [True, True, False, False, True], 0.9)
    interval = found.pop("sensitivity_ci95")
    assert found == {
        "n": 4,
        "target_dice": 0.9,
        "failures": 2,
        "few_failures": True,
        "sensitivity": 0.5,
        "flagged": 2,
        "saved": 0.5,
        "dice_all": pytest.approx(0.7675),
        "dice_kept": pytest.approx(0.81),
        "dice_kept_random": pytest.approx(0.7675),
        "dice_kept_oracle": pytest.approx(0.935),
    }
    # Of two, one: the beta quantiles of Clopper and Pearson.
    assert interval == pytest.approx([1 - 0.975**0.5, 0.975**0.5])


def test_appraisal_of_nothing_is_undefined():
    found = verdict.appraise([0.95, 0.99], [True, True], 0.9)
    assert found["sensitivity"] is found["sensitivity_ci95"] is None
    assert found["dice_kept"] is found["dice_kept_random"] is None
    assert found["dice_kept_oracle"] is None
    assert found["saved"] == 0


def test_five_test_cases_are_too_few_for_a_verdict():
    rows = rows_of(1.0, noise=0.001)
    test = [row for row in rows if row["split"] == "test"]
    few = [row for row in rows if row not in test[5:]]
    assert judge(few)["verdict"] == (
        "It is unknown whether this run's measures rank its cases: 5 test cases."
    )
    assert judge([*few, test[5]])["verdict"].startswith("This run's measures rank")


def test_measures_that_say_something_and_measures_that_say_nothing():
    good, bad = judge(rows_of(1.0)), judge(rows_of(0.0))
    assert good["verdict"].startswith("This run's measures rank its cases (rho ")
    assert "beats a constant" in good["verdict"]
    assert good["rho"]["ci95"][0] > 0
    assert good["skill"]["ci95"][0] > 0
    assert bad["verdict"].startswith("This run's measures do not rank its cases (rho ")
    assert verdict.warnings(bad["verdict"])
    assert not verdict.warnings(good["verdict"])


def test_skill_by_hand():
    rows = rows_of(0.7, seed=3)
    model = quality.fit(rows)
    test = [row for row in rows if row["split"] == "test"]
    dice = cases_table.column(test, "dice")
    constant = np.median(cases_table.column(rows, "dice", "validation"))
    predicted = [dice_map.map_dice(model.map, row) for row in test]
    expected = 1 - np.abs(predicted - dice).mean() / np.abs(constant - dice).mean()
    assert judge(rows)["skill"]["value"] == pytest.approx(expected)
    scores = [dice_map.score(model.map, row) for row in test]
    expected = stats.spearmanr(scores, dice).statistic
    assert judge(rows)["rho"]["value"] == pytest.approx(expected)


def test_measures_that_rank_can_predict_no_better_than_a_constant():
    """The network is overtrained: the map of its training cases promises too much."""
    rows = rows_of(1.0)
    for row in rows:
        row["dice"] = min(row["dice"] + 0.2 * (row["split"] == "train"), 1)
    found = judge(rows)
    assert "rank its cases" in found["verdict"]
    assert "not shown to beat a constant" in found["verdict"]
    assert not verdict.warnings(found["verdict"])


def test_few_failures_are_said():
    assert " The worst 10 % hold " in judge(rows_of(1.0))["flags"]
    few = judge(rows_of(1.0, test=4))
    assert " Too few failures" in few["flags"]


def test_worst_cases_found_by_hand():
    dice = [0.5, 0.95, 0.7, 0.92, np.nan, 0.4]
    found = verdict.worst_found(dice, [True, True, False, False, True, True])
    assert found == {
        "worst": 3,
        "found": 2,  # 0.4 and 0.5, not 0.7
        "found_by_chance": pytest.approx(9 / 5),
        "dice_flagged": pytest.approx((0.5 + 0.95 + 0.4) / 3),
    }
    nothing = verdict.worst_found([], [])
    assert nothing["worst"] == nothing["found"] == 0
    assert nothing["found_by_chance"] is nothing["dice_flagged"] is None


def test_a_review_is_told_in_words():
    said = judge(rows_of(1.0, test=30))["flags"]
    assert said.startswith(
        "Reviewing the 10 % least certain of 30 test cases finds 1 of the 3 worst "
        "(by chance 0.3): mean Dice 0.67, of the others 0.81. "
    )


@pytest.mark.parametrize(
    ("run", "worthless"),
    [("whole_large_dice_seed0", True), ("whole_small_dice_seed1", True)]
    + [
        (f"part_large_{loss}_seed{i}", False)
        for loss in ("dice", "wcc")
        for i in (0, 1)
    ],
)
def test_the_committed_runs_are_judged(run, worthless):
    rows = cases_table.read_rows(RUNS / run / "cases.csv", EVALUATION_COLUMNS)
    assert bool(verdict.warnings(verdict.of_run(rows))) == worthless


def test_files_of_a_run(tmp_path):
    said = verdict.store(tmp_path, rows_of(1.0))
    review = json.loads((tmp_path / "review.json").read_text())
    assert said.splitlines() == [
        review[name] for name in ("verdict", "flags", "bounds")
    ]
    assert review["method"] == "split"
    assert review["level"] == 0.9
    few = verdict.store(tmp_path, rows_of(1.0, validation=5))
    assert "level 0.833 (0.9 was asked for): 5 calibration cases" in few
    assert json.loads((tmp_path / "review.json").read_text())["level"] == 5 / 6
    assert verdict.store(tmp_path, rows_of(1.0, validation=2)).startswith(
        "No predicted Dice and no lower bounds"
    )
    assert not list(tmp_path.iterdir())
