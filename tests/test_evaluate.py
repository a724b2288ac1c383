import csv
import itertools
import json
import os
import re
import threading
import time
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from folders import contents

from unc_jax.data import nifti
from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.evaluate import evaluate_cases
from unc_jax.study.panels import read_panel
from unc_jax.uncertainty import measures
from unc_jax.uncertainty.packed_masks import pairwise_dice_packed
from unc_jax.uncertainty.prediction import reduce_samples

SHAPE = (8, 6, 9)
VOXEL_ML = 0.5
SAMPLES = 4
IDS = ("f", "e", "d", "c", "b", "a")  # in another order than the split
EMPTY_LABEL = "e"


class SplitOf(NamedTuple):
    train: tuple[str, ...] = ("a", "b")
    validation: tuple[str, ...] = ("c",)
    test: tuple[str, ...] = ("d", "e", "f")


class SmallCohort(NamedTuple):
    images: np.ndarray
    labels: np.ndarray
    records: tuple[dict, ...]
    ids: tuple[str, ...] = IDS
    split: SplitOf = SplitOf()
    fingerprint: str = "of the cohort"


def small_cohort():
    images = np.random.default_rng(0).normal(size=(6, *SHAPE)).astype(np.float16)
    labels = np.zeros((6, *SHAPE), np.uint8)
    labels[:, 2:6, 1:5, 3:6] = 1
    labels[:, 3, 3, 7] = 1
    labels[IDS.index(EMPTY_LABEL)] = 0
    record = {"voxel_ml": VOXEL_ML, "spacing_mm": [1.0, 2.0, 3.0]}
    return SmallCohort(images, labels, (record,) * 6)


@pytest.fixture(scope="module")
def cohort():
    return small_cohort()


def to_prediction(samples):
    return reduce_samples(jnp.asarray(one)[None] for one in samples)


class Predictor:
    """Noisy samples around a box; remembers which cases it was asked for."""

    def __init__(self, noise=0.3, broken=(), empty=()):
        self.noise, self.broken, self.empty = noise, broken, empty
        self.asked = []

    def __call__(self, image, index):
        assert image.dtype == np.float32
        assert image.shape == SHAPE
        case = IDS[index]
        self.asked.append(case)
        if case in self.broken:
            raise self.broken[case]
        p = np.full((SAMPLES, *SHAPE), 0.1, np.float32)
        if case not in self.empty:
            p[:, 2:6, 1:4, 3:6] = 0.7
            noise = np.random.default_rng(index).uniform(-1, 1, p.shape)
            p += (self.noise * noise * (p > 0.5)).astype(np.float32)
        return to_prediction(p)


def made_with(cohort="of the cohort", digest="aa", **settings):
    """Content of evaluation.json."""
    fields = {"evaluate.samples": SAMPLES, **settings}
    steps = [7]
    return {
        "cohort": cohort, "settings": fields, "steps": steps, "checkpoints": [digest]
    }  # fmt: skip


def evaluate(predict, cohort, directory, **options):
    options = {"samples": SAMPLES, "made_with": made_with(), **options}
    return evaluate_cases(predict, cohort, directory, **options)


def table_lines(directory):
    return (directory / "cases.csv").read_text().splitlines()


def test_rows_hold_what_the_measures_say(cohort, tmp_path):
    predict = Predictor()
    rows = evaluate(predict, cohort, tmp_path)
    assert cases_table.read_rows(tmp_path / "cases.csv", EVALUATION_COLUMNS) == rows
    assert predict.asked == ["a", "b", "c", "d", "e", "f"]
    assert [row["split"] for row in rows] == [
        *("train", "train", "validation", "test", "test", "test")
    ]
    row = rows[0]
    index = IDS.index("a")
    prediction = predict(np.asarray(cohort.images[index], np.float32), index)
    volumes = prediction.volumes.astype(float)
    assert row["n_samples"] == SAMPLES
    assert row["cv"] == pytest.approx(volumes.var() / (volumes.mean() + 1))
    assert row["cv_roy"] == pytest.approx(volumes.std() / volumes.mean())
    assert row["volume_sd_ml"] == pytest.approx(volumes.std() * VOXEL_ML)
    for name, value in measures.measure_all(prediction).items():
        assert row[name] == value, name
    assert 0 < row["d_pw"] < 1
    assert row["d_pw_half1"] is None  # of a source other than dropout
    # The mean mask is the box of 4 x 3 x 3, within a label of 4 x 4 x 3 + 1 voxels.
    assert row["volume_ml"] == 36 * VOXEL_ML
    assert row["reference_ml"] == 49 * VOXEL_ML
    assert row["dice"] == 2 * 36 / (36 + 49)
    assert row["status"] == "ok"


def test_dice_of_the_delivered_mask(cohort, tmp_path):
    """The scan has twice the voxels along x, within a larger field of view."""
    grid = nifti.Geometry((20, 6, 9), np.diag([1, 1, 10, 1]))
    box = [[2, 18], [0, 6], [0, 9]]
    record = {**cohort.records[0], "geometry": grid.to_json(), "box": box}
    labels = {"a": np.ones(grid.shape, bool), "b": np.ones((3, 3, 3), bool)}
    rows = evaluate(
        Predictor(noise=0.1),
        cohort._replace(records=(record,) * 6),
        tmp_path,
        reference_of=labels.get,
    )
    # 4 x 3 x 3 voxels, interpolated: 8 x 3 x 3 of 1080.
    assert rows[0]["dice_scan"] == pytest.approx(2 * 72 / (72 + 1080))
    # In mm: slices are 10 mm apart, the grid has a diagonal of less than 93 mm.
    assert 10 < rows[0]["asd_mm"] < rows[0]["hd95_mm"] < 93
    assert 0 < rows[0]["nsd"] < 1
    assert rows[1]["dice_scan"] is None  # a label on another grid
    assert rows[1]["hd95_mm"] is rows[1]["nsd"] is None
    assert rows[2]["dice_scan"] is None  # no label at hand


def test_undefined_is_an_empty_field_and_zero_is_zero(cohort, tmp_path):
    evaluate(Predictor(empty=("d", "e")), cohort, tmp_path)
    by_case = {r["case"]: r for r in csv.DictReader(table_lines(tmp_path))}
    # Label present, prediction empty: Dice 0; nothing labelled, so no mean over it.
    assert by_case["d"]["dice"] == "0.0"
    assert by_case["d"]["cv"] == "0.0"
    assert by_case["d"]["d_pw"] == "1.0"
    assert by_case["d"]["volume_ml"] == "0.0"
    for name in ("u_labelled", "cv_roy", "predictive_entropy", "mutual_information"):
        assert by_case["d"][name] == "", name
    # Both empty: no Dice.
    assert by_case["e"]["dice"] == ""
    assert by_case["e"]["reference_ml"] == "0.0"


def test_samples_with_halves_have_them_in_their_rows(cohort, tmp_path):
    plain = Predictor()

    def predict(image, index):
        return plain(image, index)._replace(halves=(0.1, 0.2))

    row = evaluate(predict, cohort, tmp_path)[0]
    image = np.asarray(cohort.images[IDS.index("a")], np.float32)
    masks = plain(image, IDS.index("a")).masks
    assert (row["u_labelled_half1"], row["u_labelled_half2"]) == (0.1, 0.2)
    assert row["d_pw_half1"] == pytest.approx(pairwise_dice_packed(masks[:2]))
    assert row["d_pw_half2"] == pytest.approx(pairwise_dice_packed(masks[2:]))


def test_cases_are_repeated_when_a_measure_was_added(cohort, tmp_path):
    rows = evaluate(Predictor(), cohort, tmp_path)
    older = [name for name in EVALUATION_COLUMNS if name != "cv_roy"]
    cases_table.write_rows(tmp_path / "cases.csv", rows, older)
    again = Predictor()
    found = evaluate(again, cohort, tmp_path)
    assert len(again.asked) == 6
    assert [row["cv_roy"] for row in found] == [row["cv_roy"] for row in rows]


def test_finished_cases_are_not_repeated(cohort, tmp_path):
    first = evaluate(Predictor(), cohort, tmp_path)
    again = Predictor()
    assert evaluate(again, cohort, tmp_path) == first
    assert again.asked == []
    # The last two lines are lost, say by a kill.
    lines = table_lines(tmp_path)
    (tmp_path / "cases.csv").write_text("\n".join(lines[:-2]) + "\n")
    reports = []
    rows = evaluate(
        again,
        cohort,
        tmp_path,
        on_case=lambda done, total, row: reports.append((done, total, row["case"])),
    )
    assert again.asked == ["e", "f"]
    assert reports == [(5, 6, "e"), (6, 6, "f")]
    for row, old in zip(rows, first, strict=True):
        assert {**row, "seconds": 0} == {**old, "seconds": 0}


@pytest.mark.parametrize(
    ("other", "difference"),
    [
        (made_with(**{"evaluate.samples": 9}), "evaluate.samples: 4 -> 9"),
        (made_with(digest="bb"), r"weights: step 7 \(aa\) -> step 7 \(bb\)"),
        (made_with(cohort="other"), 'cohort: "of the cohort" -> "other"'),
    ],
)
def test_rows_of_another_evaluation_are_kept_unless_asked(
    cohort, tmp_path, other, difference
):
    evaluate(Predictor(), cohort, tmp_path)
    before = contents(tmp_path)
    again = Predictor()
    options = {"made_with": other, "splits": ("test",)}
    with pytest.raises(InputError, match=f"{difference}.*--replace-rows"):
        evaluate(again, cohort, tmp_path, **options)
    assert contents(tmp_path) == before
    assert again.asked == []
    (tmp_path / "quality.json").write_text("{}")
    rows = evaluate(again, cohort, tmp_path, replace=True, **options)
    assert again.asked == [row["case"] for row in rows] == ["d", "e", "f"]
    assert json.loads((tmp_path / "evaluation.json").read_text()) == other
    # Nothing that was made of the old rows is left beside the new ones.
    assert sorted(contents(tmp_path)) == [
        *("cases.csv", "evaluation.json"),
        *(f"panels/{case}.npz" for case in "def"),
    ]


def test_rows_of_another_precision_are_not_continued(cohort, tmp_path):
    """A GPU may have begun them in bfloat16; a finished table is left alone."""
    half, single = ({**made_with(), "precision": p} for p in ("bfloat16", "float32"))
    with pytest.raises(KeyboardInterrupt):
        evaluate(
            Predictor(broken={"e": KeyboardInterrupt()}),
            cohort,
            tmp_path,
            made_with=half,
        )
    with pytest.raises(InputError, match='precision: "bfloat16" -> "float32"'):
        evaluate(Predictor(), cohort, tmp_path, made_with=single)
    evaluate(Predictor(), cohort, tmp_path, made_with=half)
    again = Predictor()
    evaluate(again, cohort, tmp_path, made_with=single)
    assert again.asked == []
    assert json.loads((tmp_path / "evaluation.json").read_text()) == half
    # A failed case would be tried again.
    table = tmp_path / "cases.csv"
    table.write_text(table.read_text().replace(",ok,", ",failed: torn,", 1))
    with pytest.raises(InputError, match='precision: "bfloat16" -> "float32"'):
        evaluate(again, cohort, tmp_path, made_with=single)
    evaluate(again, cohort, tmp_path, made_with=single, replace=True)
    assert len(again.asked) == 6
    assert json.loads((tmp_path / "evaluation.json").read_text()) == single


def test_rows_without_a_record_are_not_trusted(cohort, tmp_path):
    evaluate(Predictor(), cohort, tmp_path)
    (tmp_path / "evaluation.json").write_text("half")
    with pytest.raises(InputError, match=r"evaluation\.json does not say"):
        evaluate(Predictor(), cohort, tmp_path)
    again = Predictor()
    evaluate(again, cohort, tmp_path, replace=True)
    assert len(again.asked) == 6


def test_splits_can_be_evaluated_one_after_another(cohort, tmp_path):
    evaluate(Predictor(), cohort, tmp_path, splits=("test",))
    rows = evaluate(Predictor(), cohort, tmp_path, splits=("train",))
    assert [row["case"] for row in rows] == ["a", "b", "d", "e", "f"]


def test_a_failing_case_does_not_stop_the_others(cohort, tmp_path):
    broken = {"b": RuntimeError("no\nmemory"), "d": ValueError("odd")}
    rows = evaluate(Predictor(broken=broken), cohort, tmp_path)
    status = {row["case"]: row["status"] for row in rows}
    assert status["b"] == "failed: RuntimeError: no memory"
    assert [c for c, s in status.items() if s == "ok"] == ["a", "c", "e", "f"]
    assert rows[1]["dice"] is None
    assert rows[1]["n_samples"] is None
    again = Predictor()
    rows = evaluate(again, cohort, tmp_path)
    assert again.asked == ["b", "d"]
    assert all(row["status"] == "ok" for row in rows)


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError])
def test_an_interruption_keeps_what_is_finished(cohort, tmp_path, error):
    with pytest.raises(error):
        evaluate(Predictor(broken={"c": error("stop")}), cohort, tmp_path)
    assert not (tmp_path / "cases.csv").exists()  # nobody takes it for finished
    again = Predictor()
    evaluate(again, cohort, tmp_path)
    assert again.asked == ["c", "d", "e", "f"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("cases.csv", "evaluation.json", "panels")
    ]


def test_probabilities_that_are_no_numbers_fail_their_case(cohort, tmp_path):
    def predict(image, index):
        prediction = Predictor()(image, index)
        if IDS[index] == "c":
            return prediction._replace(mean=np.full(SHAPE, np.nan, np.float32))
        return prediction

    rows = evaluate(predict, cohort, tmp_path)
    assert rows[2]["status"] == (
        "failed: FloatingPointError: probabilities are not finite"
    )


def test_maps_that_cannot_be_copied_fail_their_case_alone(cohort, tmp_path):
    def predict(image, index):
        prediction = Predictor()(image, index)
        if IDS[index] != "c":
            return prediction
        gone = jnp.zeros(SHAPE)
        gone.delete()
        return prediction._replace(mean=gone)

    rows = evaluate(predict, cohort, tmp_path)
    assert re.match("failed: .*Array has been deleted", rows[2]["status"])
    assert [row["status"] for row in rows].count("ok") == len(IDS) - 1


def test_identical_samples_stop_the_evaluation(cohort, tmp_path):
    predict = Predictor(noise=0.0, empty=("a",))
    with pytest.raises(InputError, match=r"case b: .*identical.*dropout is off"):
        evaluate(predict, cohort, tmp_path)
    # An empty mask proves nothing, so the first case went through.
    assert predict.asked == ["a", "b"]


def test_one_case_without_spread_among_others_is_no_alarm(cohort, tmp_path):
    def predict(image, index):
        return Predictor(noise=0.0 if IDS[index] == "c" else 0.3)(image, index)

    rows = evaluate(predict, cohort, tmp_path)
    assert rows[2]["d_pw"] == 1
    # The same holds when what varied was evaluated earlier.
    (tmp_path / "cases.csv").write_text("\n".join(table_lines(tmp_path)[:3]) + "\n")
    assert len(evaluate(predict, cohort, tmp_path)) == 6


def test_nothing_evaluable_is_an_error(cohort, tmp_path):
    broken = dict.fromkeys(IDS, ValueError("odd"))
    with pytest.raises(InputError, match=r"none of 6 cases.*ValueError: odd"):
        evaluate(Predictor(broken=broken), cohort, tmp_path)


def test_sample_count_is_checked(cohort, tmp_path):
    with pytest.raises(InputError, match="at least 2"):
        evaluate(Predictor(), cohort, tmp_path, samples=1)
    with pytest.raises(ValueError, match="4 samples of a, not 7"):
        evaluate(Predictor(), cohort, tmp_path, samples=7)


def test_predictions_are_saved_before_their_row(cohort, tmp_path):
    saved = []

    def save(index, prediction):
        table = tmp_path / "cases.part-0.csv"
        kept = table.read_text().splitlines() if table.exists() else []
        has_row = any(line.startswith(f"{IDS[index]},") for line in kept)
        saved.append((IDS[index], has_row, prediction.mean.shape))

    evaluate(Predictor(), cohort, tmp_path, on_prediction=save)
    assert sorted(saved) == [(case, False, SHAPE) for case in "abcdef"]
    lines = table_lines(tmp_path)[1:]
    assert all(any(line.startswith(f"{one},") for line in lines) for one in "abcdef")


def test_devices_do_not_wait_for_a_case_to_be_finished(cohort, tmp_path):
    asked, later = [], threading.Event()

    def predict(image, index):
        asked.append(IDS[index])
        if len(asked) == 3:
            later.set()
        return Predictor()(image, index)

    ahead = []

    def slowly(index, prediction):
        assert later.wait(10)  # "a" is finished once "c" is on the devices
        time.sleep(0.05)

    def on_case(done, total, row):
        ahead.append(len(asked) - done)

    evaluate(predict, cohort, tmp_path, on_prediction=slowly, on_case=on_case)
    assert ahead[0] >= 2
    # The one that is finished just now no longer counts: of four, three are left.
    assert max(ahead) <= 3


def test_cases_are_measured_at_once_on_many_cores(cohort, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    together, calls, kept = threading.Barrier(2), itertools.count(), []

    def meet(index, prediction):
        if next(calls) < 2:
            together.wait(10)  # raises when the other does not come meanwhile

    def on_case(done, total, row):
        kept.append(row["case"])

    evaluate(Predictor(), cohort, tmp_path, on_prediction=meet, on_case=on_case)
    assert kept == ["a", "b", "c", "d", "e", "f"]


def test_an_error_behind_ends_the_evaluation(cohort, tmp_path):
    def full(index, prediction):
        if IDS[index] == "b":
            raise OSError("no space left")

    asked = Predictor()
    with pytest.raises(OSError, match="no space"):
        evaluate(asked, cohort, tmp_path, on_prediction=full)
    assert asked.asked[:2] == ["a", "b"]
    assert len(asked.asked) < 6
    # What was not written is no finished case, nor is any behind it.
    assert not (tmp_path / "cases.csv").exists()
    again = Predictor()
    evaluate(again, cohort, tmp_path)
    assert again.asked == ["b", "c", "d", "e", "f"]


def test_panel_is_the_slice_that_shows_most(cohort, tmp_path):
    evaluate(Predictor(empty=("d",)), cohort, tmp_path)
    index = IDS.index("a")
    panel = read_panel(tmp_path / "panels" / "a.npz")
    assert panel.z == 3  # the first of 3, 4, 5; slice 7 has one voxel
    np.testing.assert_array_equal(panel.image, cohort.images[index, :, :, 3])
    assert panel.reference.sum() == 16
    assert panel.prediction.sum() == 12
    assert panel.spacing_mm.tolist() == [1.0, 2.0]
    # Without a reference, the slice of the false alarm.
    empty = read_panel(tmp_path / "panels" / f"{EMPTY_LABEL}.npz")
    assert empty.z == 3
    assert not empty.reference.any()
