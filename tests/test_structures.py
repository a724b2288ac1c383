"""Several structures of a case: each row is what scoring that structure alone says."""

import csv
import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from samples import AFFINE, SHAPE, probability_maps, write
from scipy import ndimage

from unc_jax import score
from unc_jax.data import nifti
from unc_jax.errors import InputError
from unc_jax.review import by_structure, known_cases, rule, structures
from unc_jax.review.case_groups import group_cases
from unc_jax.review.read_structures import read_structures
from unc_jax.review.structures import Structure, wanted_of
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS

NAMES = {"background": 0, "liver": 1, "tumour": 2, "spleen": 7, "ignore": 9}
LISTED = ["liver", "spleen", "tumour"]


def score_of(*flags):
    with pytest.raises(SystemExit) as stop:
        score.main([str(flag) for flag in flags])
    return stop.value.code


def rows_of(output):
    rows = cases_table.read_rows(output / "cases.csv", REVIEW_COLUMNS)
    return {(row["case"], row["structure"]): row for row in rows}


def label_maps(seed=0, n=4):
    """A liver with a tumour in it, and a spleen of a few voxels."""
    found = np.zeros((n, *SHAPE), np.uint8)
    found[probability_maps(seed, n) >= 0.5] = 1
    found[probability_maps(seed, n) >= 0.97] = 2
    for i in range(n):
        found[i, 11:13, 2 : 5 + i % 2, 7:9] = 7
    return found


def write_samples(root, cases=("a", "b"), names=NAMES):
    for seed, case in enumerate(cases):
        for i, array in enumerate(label_maps(seed)):
            write(root / case / f"{i}.nii.gz", array)
    if names:
        (root / "dataset.json").write_text(json.dumps({"labels": names}))


def same(one, other):
    """Everything that is measured; the time and what is said of the row aside."""
    aside = {"seconds", "input", "structure", "flag", "reason"}
    names = [n for n in REVIEW_COLUMNS if n not in aside]
    assert [one[n] for n in names] == [
        pytest.approx(other[n], rel=1e-6) if isinstance(other[n], float) else other[n]
        for n in names
    ]


def test_every_structure_is_what_it_is_alone(tmp_path):
    write_samples(tmp_path / "s")
    for seed, case in enumerate("ab"):
        write(tmp_path / "truth" / f"{case}.nii.gz", label_maps(seed + 5)[0])
    flags = ["--samples", tmp_path / "s", "--references", tmp_path / "truth"]
    assert score_of(*flags, "--output", tmp_path / "all", "--label", "all") == 0
    found = rows_of(tmp_path / "all")
    assert sorted({name for _, name in found}) == LISTED
    assert len(found) == 6
    for name in LISTED:
        assert score_of(*flags, "--output", tmp_path / name, "--label", name) == 0
        alone = rows_of(tmp_path / name)
        for case in "ab":
            same(found[case, name], alone[case, name])
            assert found[case, name]["hd95_mm"] is not None
    expected = np.zeros(SHAPE, int)
    for name, value in (("liver", 1), ("tumour", 2), ("spleen", 7)):
        expected[nifti.read(tmp_path / name / "a" / "mask.nii.gz").array > 0] = value
    written = nifti.read(tmp_path / "all" / "a" / "mask.nii.gz").array
    np.testing.assert_array_equal(written, expected)
    maps = [nifti.read(tmp_path / n / "a/uncertainty.nii.gz").array for n in LISTED]
    written = nifti.read(tmp_path / "all" / "a" / "uncertainty.nii.gz").array
    np.testing.assert_array_equal(written, np.max(maps, axis=0))
    told = json.loads((tmp_path / "all" / "run.json").read_text())
    assert told["structures"] == {"liver": 1, "tumour": 2, "spleen": 7}
    assert (tmp_path / "all" / "pictures" / "a" / "spleen.png").is_file()
    # A study needs three cases that can be ranked.
    assert not any((tmp_path / "all" / "study").glob("*/summary.json"))


def test_numbers_joined_labels_and_names_of_a_file(tmp_path):
    write_samples(tmp_path / "s", names=None)
    (tmp_path / "names.json").write_text(json.dumps({"1": "liver", "2": "tumour"}))
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o"]
    assert score_of(*flags, "--label", "1+2,7") == 0
    found = rows_of(tmp_path / "o")
    assert set(found) == {(c, s) for c in "ab" for s in ("label 1+label 2", "label 7")}
    whole = nifti.read(tmp_path / "o" / "a" / "mask.nii.gz").array
    assert set(np.unique(whole)) == {0, 1, 7}
    voxels = np.mean(label_maps(0) > 0, axis=0) - np.mean(label_maps(0) == 7, axis=0)
    assert found["a", "label 1+label 2"]["volume_ml"] == pytest.approx(
        (voxels >= 0.5).sum() * 9 / 1000
    )
    # Labels without a name keep their number.
    names = ["--label", "all", "--names", tmp_path / "names.json"]
    assert score_of(*flags, *names) == 0
    assert {name for _, name in rows_of(tmp_path / "o")} == {
        *("liver", "tumour", "label 7")
    }
    assert score_of(*flags, "--label", "all") == 0  # no names at all
    assert {name for _, name in rows_of(tmp_path / "o")} == {
        *("label 1", "label 2", "label 7")
    }


def test_a_structure_that_is_not_there(tmp_path):
    """Of all, only those that a case has; one that was asked for by name is missed."""
    write_samples(tmp_path / "s")
    for path in (tmp_path / "s" / "b").iterdir():
        array = nifti.to_scan_order(*nifti.read(path))
        write(path, np.where(array == 7, 0, array))
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", "--label"]
    assert score_of(*flags, "all") == 0
    assert ("b", "spleen") not in rows_of(tmp_path / "o")
    page = (tmp_path / "o" / "report.html").read_text()
    assert "tumour, liver; not there: spleen" in page
    assert score_of(*flags, "liver,spleen") == 0
    row = rows_of(tmp_path / "o")["b", "spleen"]
    assert (row["status"], row["flag"], row["d_pw"]) == ("empty", "yes", 1.0)
    # Where the reference has it, it is missed too.
    for case in "ab":
        write(tmp_path / "truth" / f"{case}.nii.gz", label_maps()[0])
    assert score_of(*flags, "all", "--references", tmp_path / "truth") == 0
    row = rows_of(tmp_path / "o")["b", "spleen"]
    assert (row["status"], row["dice"], row["nsd"]) == ("empty", 0.0, 0.0)
    assert row["hd95_mm"] is None


def softmax(maps):
    """Channels (c, z, y, x) of background, liver, tumour; smooth, and sums of 1."""
    inner, outer = maps**9, maps - maps**9
    return np.stack([1 - maps, outer, inner]).transpose(0, 3, 2, 1)


def write_channels(root, channels_of, names):
    for i, maps in enumerate(probability_maps(2, 4)):
        folder = root / "a"
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(folder / f"{i}.npz", probabilities=channels_of(maps))
        write(folder / f"{i}.nii.gz", maps >= 0.5)
    (root / "dataset.json").write_text(json.dumps({"labels": names}))


@pytest.mark.parametrize("one_hot", [False, True])
def test_channels_that_sum_to_one_are_classes(tmp_path, one_hot):
    def channels(maps):
        found = softmax(maps)
        if not one_hot:
            return found
        return (found == found.max(axis=0)).astype(np.uint8)

    names = {"background": 0, "liver": 1, "tumour": 2}
    write_channels(tmp_path / "s", channels, names)
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o"]
    assert score_of(*flags, "--label", "all") == 0
    found = rows_of(tmp_path / "o")
    assert {name for _, name in found} == {"liver", "tumour"}
    for name in ("liver", "tumour"):
        assert score_of(*flags, "--label", name) == 0
        alone = rows_of(tmp_path / "o")["a", name]
        same(found["a", name], alone)
        assert (alone["u_labelled"] is None) == one_hot
    assert score_of(*flags, "--label", "liver+tumour,tumour") == 0
    whole = rows_of(tmp_path / "o")["a", "liver+tumour"]
    assert whole["volume_ml"] > found["a", "liver"]["volume_ml"]


def test_channels_that_do_not_are_regions_of_the_data_set(tmp_path):
    """The second channel lies in the first, as nnU-Net writes regions."""

    def channels(maps):
        return np.stack([maps, maps**4]).transpose(0, 3, 2, 1).astype(np.float16)

    names = {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3}
    write_channels(tmp_path / "s", channels, names)
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o"]
    assert score_of(*flags, "--label", "all") == 0
    found = rows_of(tmp_path / "o")
    assert {name for _, name in found} == {"whole", "core"}
    maps = probability_maps(2, 4).astype(np.float16).astype(np.float32)
    for name, own in (("whole", maps), ("core", maps**4)):
        assert found["a", name]["d_pw"] == pytest.approx(score(own)["d_pw"], abs=1e-3)
        assert score_of(*flags, "--label", name) == 0
        same(rows_of(tmp_path / "o")["a", name], found["a", name])
    assert score_of(*flags, "--label", "all") == 0
    written = nifti.read(tmp_path / "o" / "a" / "mask.nii.gz").array
    assert set(np.unique(written)) == {0, 1, 2}  # the core lies on top
    assert score_of(*flags, "--label", "1") == 4
    assert "none of them label 1" in rows_of(tmp_path / "o")["a", "label 1"]["status"]
    (tmp_path / "s" / "dataset.json").unlink()
    assert score_of(*flags, "--label", "all") == 4
    ((_, row),) = rows_of(tmp_path / "o").items()
    assert "no regions are named; give a dataset.json that names all 2" in row["status"]


def test_real_output_of_nnunet(real_data, tmp_path):
    flags = ["--nnunet-folds", real_data / "nnunet_folds"]
    flags += ["--output", tmp_path / "o", "--label"]
    assert score_of(*flags, "all") == 0
    found = rows_of(tmp_path / "o")
    assert {name for _, name in found} == {"Anterior", "Posterior"}
    assert score_of(*flags, "Posterior") == 0
    for case, row in rows_of(tmp_path / "o").items():
        same(found[case], row)


def test_a_pattern_is_not_of_folds_of_nnunet(tmp_path, capsys):
    flags = ["--nnunet-folds", tmp_path, "--pattern", "{case}", "--output"]
    assert score_of(*flags, tmp_path / "o") == 2
    assert "--pattern is of --samples" in capsys.readouterr().err


def test_names_of_a_data_set_never_lead_elsewhere(tmp_path):
    names = {"..": 1, "=1+1<script>": 2, "left/right" + "x" * 300: 7}
    write_samples(tmp_path / "s", "a", {"background": 0, **names})
    for i, array in enumerate(label_maps()):
        case = tmp_path / "s" / "b"
        case.mkdir(exist_ok=True)
        np.savez(case / f"{i}.npz", array == 1, affine=AFFINE)
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", "--label", "all"]
    assert score_of(*flags) == 0
    expected = {("a", name) for name in names} | {("b", "..")}
    assert set(rows_of(tmp_path / "o")) == expected
    drawn = sorted((tmp_path / "o" / "pictures" / "a").iterdir())
    assert len(drawn) == 3
    assert (tmp_path / "o" / "pictures" / "a" / "%2E%2E.png") in drawn
    assert "<script" not in (tmp_path / "o" / "report.html").read_text()
    with open(tmp_path / "o" / "components.csv", newline="") as file:
        assert {row["structure"][:3] for row in csv.DictReader(file)} == {
            *("..", "'=1", "lef")
        }
    rows = [r for name in ("..", "a/b") for r in known_rows(name)]
    by_structure.write_study(rows, tmp_path / "o" / "study")
    assert (tmp_path / "o" / "study" / "%2E%2E" / "summary.json").exists()


def test_cases_that_folds_of_nnunet_were_trained_on(tmp_path):
    """Of five cases of one data set; fold 1 has not seen b, nobody has seen c."""
    for fold, array in enumerate(label_maps(0, 3)):
        for case in "abc":
            write(tmp_path / "s" / f"fold_{fold}" / f"{case}.nii.gz", array)
    splits = [{"train": ["a", "b"], "val": []}, {"train": ["a"], "val": ["b"]}]
    splits.append({"train": ["b"], "val": ["a"]})
    (tmp_path / "s" / "splits_final.json").write_text(json.dumps(splits))
    for case in "abc":
        write(tmp_path / "truth" / f"{case}.nii.gz", label_maps(3)[0])
    flags = ["--nnunet-folds", tmp_path / "s", "--label", "1,7"]
    flags += ["--references", tmp_path / "truth", "--output", tmp_path / "o"]
    assert score_of(*flags) == 0
    found = rows_of(tmp_path / "o")
    for structure in ("label 1", "label 7"):
        a, b, c = (found[case, structure] for case in "abc")
        assert "2 of 3 folds were trained on it: 0, 1;" in a["warnings"]
        assert "2 of 3 folds were trained on it: 0, 2;" in b["warnings"]
        assert a["reason"] == "leaked: a network of its samples was trained on it"
        assert (c["unlike"], c["flag"], c["warnings"]) == ("", "no", "")
    assert "over all cases but" not in (tmp_path / "o" / "report.html").read_text()
    known = known_cases.read_known(tmp_path / "o" / "cases.csv")
    assert {row["case"] for row in known} == {"c"}  # the others calibrate nothing
    model = by_structure.fit(known_rows("label 1"), [])
    bound = by_structure.with_estimate(a | {"structure": "label 1"}, model, 0.5)
    assert bound["predicted_dice"] is not None
    assert bound["dice_lower"] is None
    pattern = ["--samples", tmp_path / "s", "--pattern", "fold_{sample}/{case}"]
    output = tmp_path / "by_pattern"
    assert score_of(*pattern, *flags[2:], "--output", output) == 0
    leaked = {case for (case, _), row in rows_of(output).items() if row["unlike"]}
    assert leaked == {"a", "b"}
    (tmp_path / "s" / "splits_final.json").write_text('{"train": []}')
    assert score_of(*flags) == 2
    (tmp_path / "s" / "splits_final.json").unlink()
    assert score_of(*flags) == 0
    assert {row["unlike"] for row in rows_of(tmp_path / "o").values()} == {""}


@pytest.mark.parametrize(
    ("name", "said"),
    [("fold_{}", "2 of 3 folds were trained on it: 0, 1;"), ("net{}", "says splits_")],
)
def test_a_case_that_is_named_as_a_number_is_no_fold(tmp_path, name, said):
    for fold, array in enumerate(label_maps(0, 3)):
        for case in ("2", "101"):
            write(tmp_path / "s" / case / f"{name.format(fold)}.nii.gz", array)
    splits = [{"train": ["101"]}, {"train": ["101"]}, {"train": []}]
    (tmp_path / "s" / "splits_final.json").write_text(json.dumps(splits))
    flags = ["--samples", tmp_path / "s", "--label", "1", "--output", tmp_path / "o"]
    assert score_of(*flags) == 0
    found = rows_of(tmp_path / "o")
    assert found["2", "label 1"]["unlike"] == ""
    assert said in found["101", "label 1"]["warnings"]


def test_structures_that_the_reference_lacks_are_told(tmp_path):
    """A Dice of 0 has a reason: nobody labelled them, or the patient lacks them."""
    write_samples(tmp_path / "s", ("a",))
    truth = label_maps(0)[0]
    write(tmp_path / "truth" / "a.nii.gz", np.where(truth == 7, 0, truth))
    flags = ["--samples", tmp_path / "s", "--references", tmp_path / "truth"]
    for labels in ("all", "liver,spleen", "spleen"):
        flags += ["--output", tmp_path / labels, "--label", labels]
        assert score_of(*flags) == 0
        found = rows_of(tmp_path / labels)
        assert "has no label 7, but 1, 2" in found["a", "spleen"]["warnings"]
        if labels != "spleen":
            assert "has no label" not in found["a", "liver"]["warnings"]


def test_organs_that_are_no_samples_of_one_are_told(tmp_path):
    """Files of a TotalSegmentator, say, one for each organ."""
    array = label_maps(0)[0]
    for value in (1, 7):
        write(tmp_path / "s" / "a" / f"{value}.nii.gz", array == value)
        write(tmp_path / "s" / "b" / f"{value}.nii.gz", array > 0)
    assert score_of("--samples", tmp_path / "s", "--output", tmp_path / "o") == 0
    found = rows_of(tmp_path / "o")
    assert "no voxel is in two samples: are they" in found["a", ""]["warnings"]
    assert "no voxel is in two" not in found["b", ""]["warnings"]


def test_levels_that_differ_between_structures_are_told():
    known = known_rows("liver") + known_rows("spleen")[:4]
    rows = [
        cases_table.new_row(REVIEW_COLUMNS, **(row | {"dice": None}))
        for row in known_rows("liver")[:2] + known_rows("spleen")[:2]
    ]
    wanted = rule.Rule(target_dice=0.5)
    _, found, _ = score._judge(rows, known, wanted)
    assert "(level 0.8 to 0.9) is below" in rule.describe(found)
    _, found, _ = score._judge(rows[:2], known, wanted)
    assert "(level 0.9) is below" in rule.describe(found)


def test_the_statistics_of_a_study_are_of_cases_that_no_fold_was_trained_on(tmp_path):
    """Of eight cases fold 0 has seen four, on which the folds are better."""
    cases = "abcdefgh"
    for fold in range(2):
        for number, case in enumerate(cases):
            array = label_maps(0 if number < 4 else fold + number % 3)[0]
            write(tmp_path / "s" / f"fold_{fold}" / f"{case}.nii.gz", array)
    splits = [{"train": list("abcd"), "val": []}, {"train": [], "val": []}]
    (tmp_path / "s" / "splits_final.json").write_text(json.dumps(splits))
    for case in cases:
        write(tmp_path / "truth" / f"{case}.nii.gz", label_maps(0)[0])
    flags = ["--nnunet-folds", tmp_path / "s", "--label", "1"]
    flags += ["--references", tmp_path / "truth", "--output", tmp_path / "o"]
    assert score_of(*flags) == 0
    rows = rows_of(tmp_path / "o").values()
    fair = [float(row["dice"]) for row in rows if row["case"] > "d"]
    study = tmp_path / "o" / "study"
    summary = json.loads((study / "summary.json").read_text())
    assert summary["test"]["n"] == summary["train"]["n"] == 4
    assert summary["test"]["dice"]["mean"] == pytest.approx(np.mean(fair))
    known = known_cases.read_known(study / "cases.csv")
    assert {row["case"] for row in known} == set("efgh")
    told = f"{np.mean(fair):.3f} (n = 4) over all cases except 4 on which networks"
    assert told in (tmp_path / "o" / "report.html").read_text()


def known_rows(structure, worse=0.0, cases=12):
    return [
        cases_table.new_row(
            REVIEW_COLUMNS, case=f"c{i}", structure=structure, status="ok",
            dice=0.95 - worse - i / 100, d_pw=0.95 - i / 50, cv=5.0 + i,
        )
        for i in range(cases)
    ]  # fmt: skip


def test_bounds_of_each_structure_are_of_its_own_cases(capsys):
    known = [*known_rows("liver"), *known_rows("spleen", 0.3), *known_rows("eye", 0, 2)]
    rows = [
        {**row, "dice": None} for row in known_rows("spleen") + known_rows("liver")
    ] + known_rows("eye", 0, 1)
    models = by_structure.fit(known, rows)
    assert set(models) == {"liver", "spleen"}  # two eyes calibrate nothing
    assert capsys.readouterr().err.count("u_labelled is left out") == 1
    judged = [by_structure.with_estimate(row, models, 0.99) for row in rows]
    for one, other in zip(judged[:12], judged[12:24], strict=True):
        assert one["predicted_dice"] == pytest.approx(other["predicted_dice"] - 0.3)
        assert one["dice_lower"] < other["dice_lower"]
    assert judged[-1]["predicted_dice"] is None
    (words,) = by_structure.bound_words(models, 0.9)
    assert words.startswith("liver, spleen: Lower bounds of Dice hold at level 0.9")
    # A table of one structure fits another of one, if one of them has no name.
    for whose in ("", "liver", "label 1"):
        (name,) = by_structure.fit(known_rows(whose), known_rows("liver"))
        assert name == "liver"
    with pytest.raises(InputError, match="known are only spleen"):
        by_structure.fit(known_rows("spleen"), known_rows("liver"))
    with pytest.raises(InputError, match="known are only liver, spleen"):
        by_structure.fit(known[:24], known_rows("eye") + known_rows("ear"))


def test_failures_of_each_structure(tmp_path):
    rows = [*known_rows("spleen", 0.1), *known_rows("liver")]
    rows += [cases_table.new_row(REVIEW_COLUMNS, case="x", status="failed: x")]
    rows[0].update(flag="yes", hd95_mm=4.0)
    liver, spleen = by_structure.summarise(rows, target=0.795)
    assert (spleen.structure, spleen.cases, spleen.scored) == ("spleen", 12, 12)
    assert (spleen.failures, spleen.flagged, spleen.hd95_mm) == (6, 1, 4.0)
    assert (liver.failures, liver.flagged, liver.hd95_mm) == (0, 0, None)
    assert spleen.dice == pytest.approx(0.795)
    by_structure.write_study(rows, tmp_path)
    for name in ("liver", "spleen"):
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert summary["test"]["n"] == 12
        assert summary["test"]["measures"]["d_pw"]["rho"] == pytest.approx(1)


def test_a_case_says_which_structures_are_fine():
    rows = [
        cases_table.new_row(REVIEW_COLUMNS, case=case, structure=name, flag=flag)
        for case, name, flag in [
            ("a", "spleen", "yes"),
            ("b", "liver", "no"),
            ("a", "liver", "no"),
            ("a", "eye", "no"),
        ]
    ]
    first, second = group_cases(rows, lambda row: row["structure"] == "eye")
    assert first.words == "to review: spleen; no flag: liver, eye"
    assert [number for number, _ in first.cards] == [1, 4]
    assert first.others == [3]
    assert second.words == "no flag: liver; not there: eye, spleen"
    (alone,) = group_cases(rows[:1], lambda row: False)
    assert (alone.words, len(alone.cards)) == ("", 1)


def test_tables_without_the_column_are_still_read(tmp_path):
    older = [n for n in REVIEW_COLUMNS if n not in ("structure", "nsd", "hd95_mm")]
    row = known_rows("")[0]
    cases_table.write_rows(tmp_path / "cases.csv", [row], older)
    assert cases_table.read_rows(tmp_path / "cases.csv", REVIEW_COLUMNS) == [row]


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ((("kidney",),), "x has background, liver"),
        ((("liver",), (1,)), "names a structure twice"),
    ],
)
def test_what_is_no_structure(labels, said):
    with pytest.raises(InputError, match=said):
        wanted_of(labels, {"background": (0,), "liver": (1,)}, "x")


@pytest.mark.parametrize("label", ["all", "huge", "liver"])
def test_a_name_of_a_label_that_no_map_holds(tmp_path, capsys, label):
    write_samples(tmp_path / "s", names={"liver": 1, "huge": 40000})
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o"]
    assert score_of(*flags, "--label", label) == 2
    assert "s: huge has the label 40000; the largest" in capsys.readouterr().err


def test_values_of_a_map_of_all_structures():
    found = structures.map_values(
        [Structure("core", (2, 3)), Structure("whole", (1, 2, 3)), Structure("b", (2,))]
    )
    assert found == {"whole": 1, "core": 2, "b": 4}


def test_probabilities_of_one_structure_are_not_several(tmp_path):
    write(tmp_path / "a.nii.gz", probability_maps()[0])
    with pytest.raises(InputError, match=r"a\.nii\.gz: probabilities of one structure"):
        list(read_structures(tmp_path / "a.nii.gz"))
    write(tmp_path / "a.nii.gz", label_maps()[0].astype(np.float32))
    (found,) = read_structures(tmp_path / "a.nii.gz")
    assert found.labels == {1, 2, 7}
    part = found.part(Structure("spleen", (7,)))
    assert part.array.sum() == 2 * 3 * 2
    assert all(side.start % 2 == 0 for side in part.box)


def lesion_maps():
    """Four samples: a large lesion, a small one that three have, one that one has."""
    found = np.zeros((4, *SHAPE), np.uint8)
    found[:, 2:7, 2:7, 2:6] = 1
    found[:3, 10:12, 3:5, 3:5] = 1
    found[0, 9:11, 9:11, 7:9] = 1
    return found


def write_lesions(tmp_path):
    for i, array in enumerate(lesion_maps()):
        write(tmp_path / "s" / "a" / f"{i}.nii.gz", array)
    truth = np.zeros(SHAPE, np.uint8)
    truth[2:7, 2:7, 2:6] = truth[1:3, 9:11, 7:9] = 1
    write(tmp_path / "truth" / "a.nii.gz", truth)
    names = json.dumps({"labels": {"0": "background", "1": "tumour"}})
    (tmp_path / "s" / "dataset.json").write_text(names)
    return ["--samples", tmp_path / "s", "--output", tmp_path / "o", "--label", "all"]


def test_components_of_a_case(tmp_path):
    flags = write_lesions(tmp_path)
    assert score_of(*flags, "--references", tmp_path / "truth") == 0
    with open(tmp_path / "o" / "components.csv", newline="") as file:
        big, small, only = csv.DictReader(file)
    assert [one["component"] for one in (big, small, only)] == ["1", "2", "3"]
    assert [one["presence"] for one in (big, small, only)] == ["1.0", "0.75", "0.25"]
    assert [one["matched"] for one in (big, small, only)] == ["yes", "no", "no"]
    assert [one["in_mask"] for one in (big, small, only)] == ["yes", "yes", "no"]
    assert float(small["volume_ml"]) == pytest.approx(8 * 9 / 1000)
    # The centre of voxels 10 and 11, 3 and 4, 3 and 4, by the affine of the file.
    place = AFFINE @ [10.5, 3.5, 3.5, 1]
    found = [float(small[f"{axis}_mm"]) for axis in "xyz"]
    assert found == pytest.approx(place[:3])
    row = rows_of(tmp_path / "o")["a", "tumour"]
    lesions = {"lesions": 2, "lesion_sensitivity": 0.5, "false_positives": 1}
    assert {name: row[name] for name in lesions} == lesions
    assert row["lesion_dice"] == pytest.approx(0.5)
    page = (tmp_path / "o" / "report.html").read_text()
    assert "lesion 2 of 2: 0.072 ml, 5 mm, seen in 3 of 4 samples, not in the" in page
    assert "in samples only: 0.072 ml, 5 mm, seen in 1 of 4 samples" in page
    assert "Of 2 components in the references 1 are found" in page
    assert score_of(*flags) == 0
    with open(tmp_path / "o" / "components.csv", newline="") as file:
        assert [one["matched"] for one in csv.DictReader(file)] == ["", "", ""]
    assert rows_of(tmp_path / "o")["a", "tumour"]["lesions"] is None


def test_the_largest_component_alone(tmp_path):
    flags = [*write_lesions(tmp_path), "--references", tmp_path / "truth"]
    assert score_of(*flags) == 0
    before = rows_of(tmp_path / "o")["a", "tumour"]
    assert score_of(*flags, "--largest-component") == 0
    row = rows_of(tmp_path / "o")["a", "tumour"]
    assert row["warnings"] == "removed 1 component of 0.072 ml, not the largest"
    assert (row["false_positives"], row["d_pw"]) == (0, before["d_pw"])
    assert row["volume_ml"] == pytest.approx(100 * 9 / 1000)
    assert row["dice"] > before["dice"]
    written = nifti.read(tmp_path / "o" / "a" / "mask.nii.gz").array
    assert written.sum() == 100


def test_nothing_is_left_of_a_command_for_other_structures(tmp_path):
    write_samples(tmp_path / "s")
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", "--label"]
    assert score_of(*flags, "liver") == 0
    assert (tmp_path / "o" / "a" / "mean.nii.gz").exists()
    assert (tmp_path / "o" / "pictures" / "a.png").exists()
    assert score_of(*flags, "all") == 0
    assert not (tmp_path / "o" / "a" / "mean.nii.gz").exists()
    assert not (tmp_path / "o" / "pictures" / "a.png").exists()
    assert score_of(*flags, "liver") == 0
    assert not list((tmp_path / "o" / "pictures" / "a").iterdir())


MEASURE = """
import resource, sys
from unc_jax import score
try:
    score.main(sys.argv[1:])
finally:
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(used.ru_maxrss, used.ru_utime + used.ru_stime)
"""


@pytest.mark.slow
def test_a_hundred_structures_take_a_minute_and_four_gigabytes(tmp_path):
    """300^3 voxels, 104 structures with voxels far from them, five samples."""
    rng = np.random.default_rng(0)
    seeds = np.zeros((300, 300, 300), bool)
    places = tuple(rng.integers(20, 280, (3, 104)))
    seeds[places] = True
    order = np.zeros(seeds.shape, np.uint8)
    order[places] = np.arange(1, 105)
    far, nearest = ndimage.distance_transform_edt(~seeds, return_indices=True)
    whole = order[tuple(nearest)]
    for i in range(5):
        array = np.where(far < 24 + i, whole, 0).astype(np.uint8)
        array[tuple(rng.integers(0, 300, (3, 30)))] = rng.integers(1, 105, 30)
        write(tmp_path / "s" / "a" / f"{i}.nii.gz", array)
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", "--label", "all"]
    command = [sys.executable, "-c", MEASURE, *map(str, flags)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes, seconds = map(float, done.stdout.split()[-2:])
    assert len(rows_of(tmp_path / "o")) == 104
    # Measured: 1.1 GB, 14 s of processors.
    assert kilobytes < 4e6
    assert seconds < 120


def test_a_leaked_case_with_a_second_note_is_leaked():
    rows = [{**one, "unlike": ""} for one in known_rows("liver")]
    rows[0]["unlike"] = "leaked, number of samples"
    assert by_structure.unseen(rows) == rows[1:]
    row = cases_table.new_row(
        REVIEW_COLUMNS, case="a", status="ok", unlike=rows[0]["unlike"]
    )
    assert rule.reasons(row, rule.Rule()) == [
        "leaked: a network of its samples was trained on it",
        "cannot be compared with the calibration cases: number of samples",
    ]


def test_references_with_other_labels_of_a_name_are_refused(tmp_path, capsys):
    write_samples(tmp_path / "s", "a", {"liver": 1, "spleen": 2})
    write(tmp_path / "truth" / "a.nii.gz", label_maps(0)[0])
    flags = ["--samples", tmp_path / "s", "--references", tmp_path / "truth"]
    flags += ["--label", "liver", "--output", tmp_path / "o"]
    names = tmp_path / "truth" / "dataset.json"
    names.write_text(json.dumps({"labels": {"background": 0, "spleen": 1, "liver": 2}}))
    assert score_of(*flags) == 2
    assert "liver has the labels (2,), but (1,) in" in capsys.readouterr().err
    names.write_text(json.dumps({"labels": {"background": 0, "liver": 1}}))
    assert score_of(*flags) == 0


@pytest.mark.parametrize("labels", ["all", "liver", "1,2"])
def test_voxels_that_nobody_labelled_are_no_background(tmp_path, labels):
    names = {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}
    write_samples(tmp_path / "s", ("a", "b"), names)
    for case in "ab":
        truth = label_maps(0)[0] % 3
        truth[0, 0, 0] = 3 if case == "a" else 0
        write(tmp_path / "truth" / f"{case}.nii.gz", truth)
    flags = ["--samples", tmp_path / "s", "--references", tmp_path / "truth"]
    assert score_of(*flags, "--label", labels, "--output", tmp_path / "o") == 4
    found = rows_of(tmp_path / "o")
    (failed,) = [row for (case, _), row in found.items() if case == "a"]
    assert "to be ignored (label 3)" in failed["status"]
    assert found["b", "liver"]["dice"] > 0


@pytest.mark.parametrize(
    ("first", "other"), [("liver", "liver"), ("liver", "Liver"), ("Liver", "liver")]
)
def test_models_and_references_give_a_name_the_same_labels(
    tmp_path, capsys, first, other
):
    """Otherwise the liver of one is compared with the spleen of another."""
    array = label_maps(0)[0]
    for place in ("s/m_1", "s/m_2", "truth"):
        write(tmp_path / place / "a.nii.gz", array)
        names = {first: 1, "spleen": 2}
        (tmp_path / place / "dataset.json").write_text(json.dumps({"labels": names}))
    flags = ["--samples", tmp_path / "s", "--pattern", "m_{sample}/{case}"]
    flags += ["--label", first, "--output", tmp_path / "o"]
    flags += ["--references", tmp_path / "truth"]
    assert score_of(*flags) == 0
    for place in ("s/m_2", "truth"):
        file = tmp_path / place / "dataset.json"
        before = file.read_text()
        file.write_text(json.dumps({"labels": {"spleen": 1, other: 2}}))
        capsys.readouterr()
        assert score_of(*flags) == 2
        assert f"{first} has the labels (2,), but (1,) in" in capsys.readouterr().err
        file.write_text(before)


def test_samples_with_other_names_of_a_label_are_refused(tmp_path, capsys):
    """Otherwise the liver of one fold is compared with the spleen of another."""
    array = label_maps(0)[0]
    for place, name in (("s/m_1", "liver"), ("s/m_2", "spleen"), ("truth", "Leber")):
        write(tmp_path / place / "a.nii.gz", array)
        names = {"background": 0, name: 1}
        (tmp_path / place / "dataset.json").write_text(json.dumps({"labels": names}))
    flags = ["--samples", tmp_path / "s", "--pattern", "m_{sample}/{case}"]
    flags += ["--label", "1", "--output", tmp_path / "o"]
    assert score_of(*flags) == 2
    said = capsys.readouterr().err
    assert "the labels (1,) are spleen, but liver in" in said
    assert not (tmp_path / "o").exists()
    file = tmp_path / "s" / "m_1" / "dataset.json"
    assert score_of(*flags, "--names", file) == 0
    file.write_text(file.read_text().replace("liver", "SPLEEN"))
    references = (tmp_path / "truth").rename(tmp_path / "s" / "a_truth")
    assert score_of(*flags, "--references", references) == 0


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("label 1", "label 2", False),
        ("liver", "spleen", False),
        ("label 1", "liver", True),
        ("", "label 1", True),
        ("label 1", "label 1", True),
    ],
)
def test_structures_of_two_numbers_are_two(one, other, same):
    found = by_structure.named_as(known_rows(one), known_rows(other))
    assert list(found) == [one if same else other]


def test_maps_of_an_earlier_command_are_told(tmp_path, capsys):
    write_samples(tmp_path / "s", ("a", "b"))
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", "--label", "all"]
    assert score_of(*flags) == 0
    assert "earlier command" not in capsys.readouterr().out
    shutil.rmtree(tmp_path / "s" / "b")
    assert score_of(*flags) == 0
    said = capsys.readouterr().out
    assert "also holds maps of an earlier command, in no table: b; remove" in said
    written = json.loads((tmp_path / "o" / "run.json").read_text())
    assert written["earlier_cases"] == ["b"]


def test_a_label_without_a_name_has_a_value_of_its_own(tmp_path):
    array = np.zeros(SHAPE, np.uint8)
    array[1:3], array[4:6], array[8:10] = 1, 2, 3
    names = {"whole": [1, 2], "core": 1, "edge": 2}
    for i in range(2):
        write(tmp_path / "s" / "a" / f"{i}.nii.gz", array)
    content = {"labels": {"background": 0, **names}}
    (tmp_path / "s" / "dataset.json").write_text(json.dumps(content))
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", "--label", "all"]
    assert score_of(*flags) == 0
    found = rows_of(tmp_path / "o")
    assert "has the value" in found["a", "label 3"]["warnings"]
    mask = nib.load(tmp_path / "o" / "a" / "mask.nii.gz").get_fdata()
    counts = dict(zip(*np.unique(mask, return_counts=True), strict=True))
    assert len(counts) == 4  # nothing, core, edge, label 3


def test_new_cases_without_a_measure_are_judged_all_the_same(tmp_path, capsys):
    """One sample each: no spread, so nothing that the known cases have."""
    write(tmp_path / "s" / "a" / "0.nii.gz", label_maps(0)[0] == 1)
    known = known_rows("")
    cases_table.write_rows(tmp_path / "known.csv", known, REVIEW_COLUMNS)
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o"]
    assert score_of(*flags, "--calibrate", tmp_path / "known.csv") == 0
    assert "No predicted Dice: no measure is known of both" in capsys.readouterr().out
    ((_, row),) = rows_of(tmp_path / "o").items()
    assert (row["status"], row["flag"]) == ("one_sample", "yes")
