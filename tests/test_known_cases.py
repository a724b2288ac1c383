"""Cases of known Dice that calibrate others, and references of a user."""

import errno
import json

import numpy as np
import pytest
from samples import write

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.review import (
    by_structure,
    case_files,
    failures,
    known_cases,
    quality,
)
from unc_jax.review.references import References
from unc_jax.review.scans import Scan, find_scans
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS, REVIEW_COLUMNS
from unc_jax.study.run_folder import RunFolder


def known_rows(count=12, columns=EVALUATION_COLUMNS, **values):
    return [
        cases_table.new_row(
            columns,
            **{"case": f"c{i}", "status": "ok", "dice": 0.9 - i / 100, "cv": 5.0 + i}
            | {"d_pw": 0.9 - i / 50, "u_labelled": 0.1}
            | values,
        )
        for i in range(count)
    ]


def test_training_cases_are_left_out_by_name(tmp_path, capsys):
    rows = known_rows()
    for index, row in enumerate(rows):
        row["split"] = "train" if index < 7 else "test"
    cases_table.write_rows(tmp_path / "known.csv", rows, EVALUATION_COLUMNS)
    kept = known_cases.read_known(tmp_path / "known.csv", {"c7"})
    assert [row["case"] for row in kept] == ["c8", "c9", "c10", "c11"]
    assert not any(row["split"] for row in kept)
    words = capsys.readouterr().err
    assert "calibrate nothing: 8 training cases: c0, c1, c2, c3, c4, ..." in words
    with pytest.raises(InputError, match="calibrate nothing: 12 training cases"):
        known_cases.read_known(tmp_path / "known.csv", {row["case"] for row in rows})


@pytest.mark.parametrize("split", ["Train", "train ", "training"])
def test_a_split_that_is_none_is_refused(tmp_path, split):
    """As a spreadsheet leaves it; its cases would calibrate otherwise."""
    rows = known_rows(split="test")
    rows[0]["split"] = split
    cases_table.write_rows(tmp_path / "known.csv", rows, EVALUATION_COLUMNS)
    with pytest.raises(InputError, match="is none of train, validation, test"):
        known_cases.read_known(tmp_path / "known.csv")


def test_a_name_with_a_space_behind_it_is_that_of_a_training_case(tmp_path):
    rows = known_rows(columns=REVIEW_COLUMNS)
    rows[0]["case"] = "c0 "
    cases_table.write_rows(tmp_path / "known.csv", rows, REVIEW_COLUMNS)
    kept = known_cases.read_known(tmp_path / "known.csv", {"c0"})
    assert [row["case"] for row in kept] == [f"c{i}" for i in range(1, 12)]


FIELDS = {"model.dropout_rate": 0.1, "evaluate.overlap": [0.25, 0.25, 0.25]}
FIELDS |= {"evaluate.mask_scope": "cohort", "seed": 0}
RATE, SCOPE = {"model.dropout_rate": 0.5}, {"evaluate.mask_scope": "volume"}
OVERLAP = {"evaluate.overlap": [0.5, 0.5, 0.5]}


@pytest.mark.parametrize(
    ("name", "content", "largest", "words"),
    [
        ("evaluation.json", {"checkpoints": ["a"]}, False, None),
        ("evaluation.json", {"checkpoints": ["a"]}, True, "with --largest-component"),
        ("evaluation.json", {"checkpoints": ["b"]}, False, "other networks, says eval"),
        ("evaluation.json", {"checkpoints": ["a", "b"]}, False, "other networks"),
        (
            "run.json",
            {"checkpoints": ["b"], "flags": {}},
            False,
            "other networks, says",
        ),
        ("run.json", {"checkpoints": ["a"], "flags": {}}, False, None),
        ("evaluation.json", {"settings": FIELDS}, False, None),
        ("evaluation.json", {"settings": FIELDS | {"seed": 3}}, False, None),
        ("evaluation.json", {"settings": FIELDS | SCOPE}, False, None),
        ("evaluation.json", {"settings": FIELDS | RATE}, False, "rate: 0.5 -> 0.1"),
        ("run.json", {"config": FIELDS | RATE}, False, "otherwise .* says run.json"),
        ("run.json", {"config": FIELDS | OVERLAP}, False, "evaluate.overlap"),
        ("run.json", {"config": {"model.other": 1}}, False, None),
        ("run.json", {"config": "of a user"}, False, None),
        ("run.json", {"flags": {"largest_component": "True"}}, True, None),
        ("run.json", {"flags": {"largest_component": "True"}}, False, "without --larg"),
        ("run.json", {"flags": {}}, True, "its masks have all components"),
        ("run.json", {"largest_component": "True"}, True, None),  # of `score`
        ("run.json", {"largest_component": "True"}, False, "without --largest"),
        ("other.json", {"checkpoints": ["b"]}, True, None),
    ],
)
def test_cases_that_were_segmented_otherwise_calibrate_nothing(
    tmp_path, name, content, largest, words
):
    files.write_json(tmp_path / name, content)
    # A table under another name may come from elsewhere.
    known_cases.check_origin(tmp_path / "known.csv", ["c"], FIELDS, largest=largest)
    path = tmp_path / "cases.csv"
    if words is None:
        known_cases.check_origin(path, ["a"], FIELDS, largest=largest)
        return
    with pytest.raises(InputError, match=words):
        known_cases.check_origin(path, ["a"], FIELDS, largest=largest)


def test_known_cases_of_another_number_of_samples_calibrate_nothing(capsys):
    """A fold is missing of some, say; their measures are not those of the others."""
    known = known_rows(12, REVIEW_COLUMNS, n_samples=5)
    known += known_rows(2, REVIEW_COLUMNS, n_samples=4)
    rows = known_rows(6, REVIEW_COLUMNS, n_samples=5)
    rows += known_rows(1, REVIEW_COLUMNS, n_samples=4)
    model = by_structure.fit(known, rows)[""]
    assert (len(model.residuals), model.samples) == (12, (5,))
    assert "2 of 14 known cases are left out: they" in capsys.readouterr().err
    with pytest.raises(InputError, match="at least 3 are needed"):
        by_structure.fit(known, rows[-1:])
    nobody = [row | {"n_samples": None} for row in known]
    assert len(by_structure.fit(nobody, rows)[""].residuals) == 14


def test_known_cases_say_how_many_samples_they_have(tmp_path):
    known = known_rows(n_samples=10)
    known_cases.check_samples(tmp_path, known, known_rows(n_samples=10))
    known[3]["n_samples"] = None
    with pytest.raises(InputError, match="n_samples of case c3 is empty"):
        known_cases.check_samples(tmp_path, known, known_rows(n_samples=10))


def test_a_file_that_is_there_twice_is_refused(tmp_path):
    assert case_files.file_of_case(tmp_path, "a") is None
    write(tmp_path / "a.nii", np.zeros((4, 4, 4), np.uint8))
    assert case_files.file_of_case(tmp_path, "a") == tmp_path / "a.nii"
    write(tmp_path / "a.nii.gz", np.zeros((4, 4, 4), np.uint8))
    with pytest.raises(InputError, match=r"a\.nii is there too; remove one"):
        case_files.file_of_case(tmp_path, "a")


def test_empty_masks_of_an_evaluation_calibrate_nothing(tmp_path, capsys):
    """It calls such a case ok, and its CV and D_pw are defined."""
    rows = known_rows(volume_ml=1000.0, split="test")
    for row in rows[:4]:
        row.update(volume_ml=0.0, dice=0.0, u_labelled=None)
    cases_table.write_rows(tmp_path / "known.csv", rows, EVALUATION_COLUMNS)
    kept = known_cases.read_known(tmp_path / "known.csv")
    assert [row["case"] for row in kept] == [f"c{i}" for i in range(4, 12)]
    assert "no bound: 4 with an empty mask" in capsys.readouterr().err


def test_masks_of_another_tool_calibrate_by_the_measures_they_have(tmp_path, capsys):
    """A table of `score` on binary masks: no U_labelled, voxels of a scan."""
    masks = known_rows(columns=REVIEW_COLUMNS, u_labelled=None)
    for row in masks:
        row.update(volume_ml=1000.0, volume_sd_ml=row["cv"])  # 0.025 / cv ml a voxel
    cases_table.write_rows(tmp_path / "known.csv", masks, REVIEW_COLUMNS)
    own = known_rows(volume_ml=1000.0, volume_sd_ml=200.0, split="train")
    known = known_cases.read_known(tmp_path / "known.csv")
    measures = known_cases.fit_measures(known, own)
    assert measures == ["d_pw"]
    words = capsys.readouterr().err
    assert "u_labelled is left out" in words
    assert "cv is left out" in words
    model = quality.fit(own, calibration=known, measures=measures)
    assert len(model.residuals) == 12
    assert quality.predict(model, masks[0], 0.9).lower <= 0.9


SCAN = np.zeros((8, 8, 8), np.uint8)
SCAN[2:6, 2:6, 2:6] = 1  # 64 voxels


def references_of(tmp_path, target="liver", **how):
    config = {"data.liver_labels": [1, 2], "data.tumor_labels": [2]}
    run = RunFolder(tmp_path, {"data.target": target, **config}, [])
    return References(run, how.get("source", tmp_path), how.get("folder"))


def row_of(references, tmp_path, name="a"):
    scan = Scan("case_a", tmp_path / "imagesTr" / f"{name}.nii.gz")
    row = cases_table.new_row(REVIEW_COLUMNS, case="case_a", status="ok")
    return references.with_dice(row, scan, tmp_path / "mask.nii.gz")


@pytest.mark.parametrize("place", ["set", "set/labelsTr"])
def test_labels_are_those_that_the_set_gives_the_name_of_the_target(tmp_path, place):
    """AMOS has the spleen where Decathlon has the liver."""
    names = {"0": "background", "1": "spleen", "6": "liver"}
    scan, label = "imagesTr/a.nii.gz", "labelsTr/a.nii.gz"
    entry = {"image": f"./{scan}", "label": f"./{label}"}
    content = {"labels": names, "numTraining": 1, "training": [entry], "test": []}
    truth = SCAN * 6
    truth[0] = 1
    write(tmp_path / "set" / scan, SCAN)
    write(tmp_path / "set" / label, truth)
    write(tmp_path / "mask.nii.gz", SCAN)
    files.write_json(tmp_path / "set" / "dataset.json", content)
    folder = tmp_path / place if place != "set" else None
    run = RunFolder(tmp_path, {"data.target": "liver", "data.liver_labels": []}, [])
    references = References(run, tmp_path / "set", folder)
    assert references.values == (6,)
    row = references.with_dice(
        cases_table.new_row(REVIEW_COLUMNS, case="a", status="ok"),
        Scan("a", tmp_path / "set" / scan),
        tmp_path / "mask.nii.gz",
    )
    assert row["dice"] == 1.0
    del names["6"]
    files.write_json(tmp_path / "set" / "dataset.json", content)
    row = row_of(References(run, tmp_path / "set", folder), tmp_path / "set")
    assert "no Dice: " in row["warnings"]
    assert "names no liver among 1 spleen" in row["warnings"]


def test_references_of_scans_in_folders_have_the_names_of_these(tmp_path):
    for folder, at in (("pat 1", 0), ("pat2", 1)):
        write(tmp_path / "in" / folder / "ct.nii.gz", SCAN)
        write(tmp_path / "truth" / f"{folder}.nii.gz", np.roll(SCAN, at, axis=0))
    write(tmp_path / "mask.nii.gz", SCAN)
    references = references_of(tmp_path, folder=tmp_path / "truth")

    def dices():
        for scan in find_scans(tmp_path / "in").scans:
            row = cases_table.new_row(REVIEW_COLUMNS, case=scan.case, status="ok")
            mask = tmp_path / "mask.nii.gz"
            yield references.with_dice(row, scan, mask)["dice"]

    assert [*dices()] == [1.0, 0.75]
    # That of another scan with the same file name is no reference.
    (tmp_path / "truth" / "pat 1.nii.gz").rename(tmp_path / "truth" / "ct.nii.gz")
    assert [*dices()] == [None, 0.75]


def test_a_reference_with_unlabelled_voxels_gives_no_dice(tmp_path):
    """Whether its labels are named by the config or by the data set."""
    names = {"background": 0, "liver": 1, "tumor": 2, "ignore": 3}
    files.write_json(tmp_path / "dataset.json", {"labels": names})
    truth = SCAN.copy()
    for name, value in (("a", 3), ("b", 0)):
        truth[0, 0, 0] = value
        write(tmp_path / "truth" / f"{name}.nii.gz", truth)
    write(tmp_path / "mask.nii.gz", SCAN)
    references = references_of(tmp_path, folder=tmp_path / "truth")
    row = row_of(references, tmp_path, "a")
    assert row["dice"] is None
    assert "to be ignored (label 3)" in row["warnings"]
    assert row_of(references, tmp_path, "b")["dice"] == 1.0


def test_dice_against_a_folder(tmp_path):
    write(tmp_path / "mask.nii.gz", SCAN)
    truth = np.roll(SCAN, 1, axis=0)
    truth[truth > 0] = 2
    write(tmp_path / "truth" / "a.nii.gz", truth)  # named as the scan's file
    row = row_of(references_of(tmp_path, folder=tmp_path / "truth"), tmp_path)
    assert row["dice"] == pytest.approx(0.75)
    # Of 56 boundary voxels each, 16 lie 2 mm from the other cube and 4 lie 1.5 mm.
    distances = {"hd95_mm": 2.0, "asd_mm": 76 / 112, "nsd": 1.0}
    assert {name: row[name] for name in distances} == pytest.approx(distances)
    assert row["reference_ml"] == pytest.approx(64 * 9 / 1000)
    write(tmp_path / "truth" / "case_a.nii.gz", SCAN)  # named as the case
    row = row_of(references_of(tmp_path, folder=tmp_path / "truth"), tmp_path)
    assert (row["dice"], row["warnings"]) == (1.0, "")


@pytest.mark.parametrize(
    ("truth", "target", "said"),
    [
        (None, "liver", "no case_a.nii.gz"),
        (SCAN[:7], "liver", "not on the grid of the scan"),
        (SCAN * 5, "liver", "has the labels 5; the run was trained on 1, 2"),
        (SCAN, "tumor", "has the labels 1; the run was trained on 2"),
    ],
)
def test_a_reference_of_no_use_is_a_warning(tmp_path, truth, target, said):
    write(tmp_path / "mask.nii.gz", SCAN)
    (tmp_path / "truth").mkdir()
    if truth is not None:
        write(tmp_path / "truth" / "a.nii.gz", truth)
    references = references_of(tmp_path, target, folder=tmp_path / "truth")
    row = row_of(references, tmp_path)
    assert row["dice"] is None
    assert row["warnings"].startswith("no Dice: ")
    assert said in row["warnings"]


def test_dice_of_a_labelled_set(tmp_path):
    """A case without the structure counts: its Dice is 0."""
    write(tmp_path / "mask.nii.gz", SCAN)
    for folder in ("imagesTr", "labelsTr"):
        write(tmp_path / folder / "a.nii.gz", SCAN)
    pair = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    content = {"labels": {"0": "background", "1": "liver", "2": "tumor"}, "name": "x"}
    content |= {"modality": {"0": "CT"}, "training": [pair], "test": []}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    assert row_of(references_of(tmp_path), tmp_path)["dice"] == 1
    assert row_of(references_of(tmp_path, "tumor"), tmp_path)["dice"] == 0


def test_errors_of_the_disk_are_told_from_those_of_a_case(tmp_path):
    def of(number, path):
        return failures.is_of_the_disk(OSError(number, "why", str(path)), tmp_path)

    assert of(errno.ENOSPC, tmp_path / "a" / "mask.nii.gz")
    assert of(errno.EIO, tmp_path / "cases.csv")
    assert not of(errno.EIO, tmp_path.parent / "scan.nii.gz")
    assert not of(errno.ENAMETOOLONG, tmp_path / "a" / "mask.nii.gz")
    assert not of(errno.EACCES, tmp_path / "a")  # the output itself may be written
    assert failures.is_of_the_disk(OSError(errno.ENOSPC, "full"), tmp_path)
    assert not failures.is_of_the_disk(InputError("no scan"), tmp_path)


def test_cases_without_a_bound_of_their_own_calibrate_nothing(tmp_path, capsys):
    """An empty mask has a Dice of 0 and, of masks, the best D_pw."""
    rows = known_rows(columns=REVIEW_COLUMNS)
    own = {"dice": 0.0, "d_pw": 1.0, "cv": 0.0}
    rows[1] |= {**own, "status": "empty"}
    rows[2] |= {**own, "unlike": "identical samples, missing measures"}
    rows[3] |= {"unlike": "leaked, number of samples"}
    cases_table.write_rows(tmp_path / "known.csv", rows, REVIEW_COLUMNS)
    kept = known_cases.read_known(tmp_path / "known.csv")
    assert [row["case"] for row in kept] == ["c0", *(f"c{i}" for i in range(4, 12))]
    said = capsys.readouterr().err
    assert "2 with an empty mask, one sample or copies of a sample" in said
    assert "1 training case: c3" in said
    cases_table.write_rows(tmp_path / "known.csv", rows[1:3], REVIEW_COLUMNS)
    with pytest.raises(InputError, match="such cases get no bound"):
        known_cases.read_known(tmp_path / "known.csv")


def test_no_common_measure_is_an_input_error():
    rows = known_rows(columns=REVIEW_COLUMNS, d_pw=None, cv=None, u_labelled=None)
    with pytest.raises(InputError, match="no measure is known of both"):
        by_structure.fit(known_rows(columns=REVIEW_COLUMNS), rows)
