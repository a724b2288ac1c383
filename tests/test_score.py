import csv
import hashlib
import itertools
import json
import shutil
import signal
import subprocess
import sys

import nibabel
import numpy as np
import pytest
from folders import contents
from samples import AFFINE, SHAPE, probability_maps, write, write_cases

from unc_jax import score
from unc_jax.data import nifti
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.distances import surface_distances
from unc_jax.uncertainty import measures
from unc_jax.uncertainty.host_samples import reduce_maps


def by_hand(maps):
    """All measures in float64, straight from their formulas."""
    p = np.asarray(maps, float)
    masks = p >= 0.5
    volumes = masks.sum(axis=(1, 2, 3))

    def entropy(q):
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.nan_to_num(-q * np.log(q)), np.nan_to_num(
                -q * np.log(q) - (1 - q) * np.log(1 - q)
            )

    mean = p.mean(axis=0)
    inside = mean >= 0.5
    predictive, expected = entropy(mean)[1], entropy(p)[1].mean(axis=0)
    pairs = itertools.combinations(masks, 2)
    found = {
        "cv": volumes.var() / (volumes.mean() + 1),
        "d_pw": np.mean([2 * (a & b).sum() / (a.sum() + b.sum()) for a, b in pairs]),
        "u_labelled": entropy(p)[0].mean(axis=0)[inside].mean(),
        "cv_roy": volumes.std() / volumes.mean(),
        "u_labelled_binary": expected[inside].mean(),
        "predictive_entropy": predictive[inside].mean(),
        "mutual_information": np.maximum(predictive - expected, 0)[inside].mean(),
    }
    return found, mean, volumes


def run(capsys, *flags):
    with pytest.raises(SystemExit) as stop:
        score.main([str(flag) for flag in flags])
    return stop.value.code, capsys.readouterr()


def rows_of(output):
    return {
        row["case"]: row
        for row in cases_table.read_rows(output / "cases.csv", REVIEW_COLUMNS)
    }


def test_measures_of_probabilities_agree_with_numpy():
    maps = probability_maps()
    expected, mean, volumes = by_hand(maps)
    outcome = reduce_maps(maps)
    assert measures.measure_all(outcome) == pytest.approx(expected, rel=2e-5)
    np.testing.assert_allclose(outcome.mean, mean, atol=1e-6)
    uncertainty = measures.voxelwise_uncertainty(maps)
    np.testing.assert_allclose(outcome.uncertainty, uncertainty, atol=1e-6)
    np.testing.assert_array_equal(outcome.volumes, volumes)
    assert not outcome.hard
    assert not outcome.identical


@pytest.mark.parametrize("dtype", [bool, np.float32])
def test_masks_have_votes_and_no_entropy_of_their_own(dtype):
    masks = probability_maps() >= 0.5
    expected, _, _ = by_hand(masks)
    outcome = reduce_maps(masks.astype(dtype))
    assert outcome.hard
    for name in ("cv", "d_pw", "cv_roy", "predictive_entropy", "mutual_information"):
        assert measures.measure_all(outcome)[name] == pytest.approx(
            expected[name], rel=1e-5
        )
    assert np.isnan(measures.measure_all(outcome)["u_labelled"])
    assert np.isnan(measures.measure_all(outcome)["u_labelled_binary"])
    assert outcome.uncertainty.max() == pytest.approx(
        max(-q * np.log(q) - (1 - q) * np.log(1 - q) for q in (0.4, 0.6))
    )


def test_a_tie_of_votes_belongs_to_the_mask():
    first = np.zeros(SHAPE, bool)
    first[2] = True
    outcome = reduce_maps([first, ~first])
    assert (outcome.mean == 0.5).all()


def test_copies_are_counted():
    """Masks of a small structure may agree, empty ones always do."""
    some = probability_maps()[:3]
    assert reduce_maps(some).copies == 0
    assert reduce_maps([some[0], some[1], some[0], some[1], some[0]]).copies == 3
    empty = np.zeros(SHAPE, np.float32)
    assert reduce_maps([empty, some[0], empty, empty, some[1]]).copies == 0
    assert reduce_maps([some[0] >= 0.5, some[1] >= 0.5, some[0] >= 0.5]).copies == 1


def test_empty_samples():
    outcome = reduce_maps([np.zeros(SHAPE, np.float32)] * 3)
    assert outcome.identical
    assert measures.measure_all(outcome)["cv"] == 0
    assert measures.measure_all(outcome)["d_pw"] == 1
    undefined = set(measures.measure_all(outcome)) - {"cv", "d_pw"}
    assert all(np.isnan(measures.measure_all(outcome)[name]) for name in undefined)


def test_no_sample_or_another_shape_is_refused():
    sample = np.ones(SHAPE, bool)
    with pytest.raises(ValueError, match="no sample"):
        reduce_maps([])
    with pytest.raises(ValueError, match="at least 2"):
        measures.measure_all(reduce_maps([sample]))
    with pytest.raises(ValueError, match="shape"):
        reduce_maps([sample, np.ones((1, 2, 3), bool)])


def test_scores_of_folders_with_references(tmp_path, capsys):
    arrays = write_cases(tmp_path / "samples")
    for case in arrays:
        write(tmp_path / "truth" / f"{case}.nii.gz", arrays[case][0] >= 0.5)
    output = tmp_path / "out"
    code, printed = run(
        capsys, "--samples", tmp_path / "samples", "--output", output,
        "--references", tmp_path / "truth",
    )  # fmt: skip
    assert code == 0, printed.err
    assert "2 cases" in printed.out
    for case, row in rows_of(output).items():
        expected, mean, volumes = by_hand(arrays[case])
        found = {name: row[name] for name in expected}
        assert found == pytest.approx(expected, rel=2e-5)
        mask, truth = mean >= 0.5, arrays[case][0] >= 0.5
        assert row["dice"] == pytest.approx(
            2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        )
        apart = surface_distances(mask, truth, (2, 1.5, 3), tolerance_mm=2)
        assert [row[name] for name in apart._fields] == pytest.approx(apart)
        assert row["volume_ml"] == pytest.approx(mask.sum() * 9 / 1000)
        assert row["volume_sd_ml"] == pytest.approx(volumes.std() * 9 / 1000)
        written = nifti.read(output / case / "mask.nii.gz")
        np.testing.assert_array_equal(written.geometry.affine, AFFINE)
        stored = nifti.to_scan_order(written.array, written.geometry)
        np.testing.assert_array_equal(stored, mask)
        assert (output / "pictures" / f"{case}.png").exists()
    summary = json.loads((output / "study" / "summary.json").read_text())
    assert summary["test"]["n_defined"] == 2
    assert (output / "study" / "figure2.png").exists()
    assert (output / "report.html").exists()
    assert json.loads((output / "run.json").read_text())["samples a case"] == "4"


def test_one_bad_case_never_ends_the_run(tmp_path, capsys):
    write_cases(tmp_path / "s", ("good", "moved", "cut", "pictures"))
    write(tmp_path / "s" / "moved" / "3.nii.gz", probability_maps()[0], AFFINE + 0.5)
    whole = (tmp_path / "s" / "cut" / "2.nii.gz").read_bytes()
    (tmp_path / "s" / "cut" / "2.nii.gz").write_bytes(whole[: len(whole) // 2])
    code, printed = run(capsys, "--samples", tmp_path / "s", "--output", tmp_path / "o")
    assert code == 4
    assert "3 failed\nthe first, cut: failed: " in printed.out
    status = {case: row["status"] for case, row in rows_of(tmp_path / "o").items()}
    assert status.pop("good") == "ok"
    for case, said in {
        "moved": "not on the grid",
        "cut": "truncated",
        "pictures": "rename it",
    }.items():
        assert said in status.pop(case)
    assert not status
    assert all(
        row["flag"] == "yes" for row in rows_of(tmp_path / "o").values()
        if row["case"] != "good"
    )  # fmt: skip


@pytest.mark.parametrize("labels", [(), ("--label", "all")])
def test_classes_are_no_samples(tmp_path, capsys, labels):
    """(x, y, z, class), as some tools write it, would score the background too."""
    maps = write_cases(tmp_path / "s", ("good",), hard=bool(labels))["good"]
    for number, sample in enumerate(maps):
        both = np.stack([1 - sample, sample], axis=-1)
        folder = tmp_path / "s" / "classes"
        folder.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(both, AFFINE), folder / f"{number}.nii.gz")
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", *labels]
    assert run(capsys, *flags)[0] == 4
    rows = rows_of(tmp_path / "o")
    assert rows["good"]["status"] == "ok"
    assert "as the classes of a softmax do" in rows["classes"]["status"]


def test_masks_agree_by_chance_where_they_are_small_or_certain(tmp_path, capsys):
    distance = np.linalg.norm(np.mgrid[-12:12, -12:12, -12:12], axis=0)
    certain = np.stack([distance < 8] * 4)
    certain[0, 12, 12, 12] = certain[1, 12, 12, 11] = False
    cases = {
        "large": [distance < radius for radius in (7, 8, 7, 9)],
        "small": [distance < radius for radius in (3, 4, 3, 6)],
        "certain": certain,
        "empty": [distance < radius for radius in (0, 8, 0, 9)],
        "same": [distance < 8] * 4,
    }
    for case, masks in cases.items():
        for number, mask in enumerate(masks):
            write(tmp_path / "s" / case / f"{number}.nii.gz", mask)
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o"]
    assert run(capsys, *flags)[0] == 0
    rows = rows_of(tmp_path / "o")
    flagged = {case for case, row in rows.items() if row["unlike"]}
    assert flagged == {"large", "same"}
    assert rows["large"]["warnings"] == "1 of 4 samples are copies of others"
    assert rows["certain"]["warnings"] == ""


def test_copies_of_one_sample_have_no_bound(tmp_path, capsys):
    cases = [f"c{number}" for number in range(12)]
    maps = write_cases(tmp_path / "s", cases)
    for case in cases:
        write(tmp_path / "truth" / f"{case}.nii.gz", maps[case][0] >= 0.5)
    first = tmp_path / "first"
    flags = ["--references", tmp_path / "truth"]
    run(capsys, "--samples", tmp_path / "s", "--output", first, *flags)
    for number in range(4):
        write(tmp_path / "new" / "copies" / f"{number}.nii.gz", maps["c0"][0])
        mask = maps["c1"][number] if number else maps["c1"][0] >= 0.5
        write(tmp_path / "new" / "mixed" / f"{number}.nii.gz", mask)
        once = maps["c2"][0 if number == 3 else number]
        write(tmp_path / "new" / "one_twice" / f"{number}.nii.gz", once)
    flags = ["--calibrate", first / "cases.csv", "--output", tmp_path / "o"]
    assert run(capsys, "--samples", tmp_path / "new", *flags)[0] == 0
    rows = rows_of(tmp_path / "o")
    code, printed = run(
        capsys, "--samples", tmp_path / "new", *flags, "--largest-component"
    )
    assert (code, "its masks have all components" in printed.err) == (2, True)
    for case, words in (("copies", "all samples are"), ("one_twice", "1 of 4 samples")):
        assert rows[case]["unlike"] == "identical samples"
        assert rows[case]["reason"].startswith("samples of it are copies of others")
        assert rows[case]["warnings"].startswith(words)
    assert rows["mixed"]["unlike"] == "missing measures"
    assert "some samples are masks" in rows["mixed"]["warnings"]
    for row in rows.values():
        assert row["predicted_dice"] is not None
        assert row["dice_lower"] is None
        assert row["flag"] == "yes"


def test_a_name_that_is_too_long_ends_no_run(tmp_path, capsys):
    """A folder can have such a name, its picture cannot."""
    long = "a" * 252
    for case in (long, "b"):
        for sample, array in enumerate(probability_maps()[:3]):
            write(tmp_path / "s" / case / f"{sample}.nii.gz", array)
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o"]
    code, printed = run(capsys, *flags)
    assert code == 4
    rows = rows_of(tmp_path / "o")
    assert "File name too long" in rows[long]["status"]
    assert rows["b"]["status"] == "ok"
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("labels", [(), ("--label", "all")])
def test_one_sample_has_all_but_a_spread(tmp_path, capsys, labels):
    arrays = write_cases(tmp_path / "s", ("alone", "several"), hard=True)
    for path in (tmp_path / "s" / "alone").glob("[1-9].nii.gz"):
        path.unlink()
    for case, one in arrays.items():
        write(tmp_path / "truth" / f"{case}.nii.gz", np.roll(one[0], 1, axis=0))
    output = tmp_path / "o"
    code, printed = run(
        capsys, "--samples", tmp_path / "s", "--output", output,
        "--references", tmp_path / "truth", *labels,
    )  # fmt: skip
    assert code == 0, printed.err
    assert "1 case with one sample: no spread" in printed.out
    rows = rows_of(output)
    assert rows["several"]["status"] == "ok"
    row = rows["alone"]
    assert (row["status"], row["n_samples"], row["flag"]) == ("one_sample", 1, "yes")
    assert row["volume_ml"] == pytest.approx(arrays["alone"][0].sum() * 9 / 1000)
    assert 0 < row["dice"] < 1
    assert row["hd95_mm"] == pytest.approx(2)  # one voxel to the side
    spread = (*measures.MEASURES, "volume_sd_ml", "volume_low_ml", "predicted_dice")
    assert all(row[name] is None for name in spread)
    assert "identical" not in row["warnings"]
    assert row["uncertain_where"] == ""
    components = read_components(output)
    assert [one["d_pw"] for one in components if one["case"] == "alone"] == [""]
    assert (output / "report.html").exists()


def read_components(output):
    with open(output / "components.csv", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_stack_per_case_scores_as_its_samples_do(tmp_path, capsys):
    arrays = write_cases(tmp_path / "s")
    for case, maps in arrays.items():
        (tmp_path / case).mkdir()
        path = tmp_path / case / "all.nii.gz"
        image = nibabel.Nifti1Image(np.moveaxis(maps, 0, 3), AFFINE)
        image.to_filename(path)
        (tmp_path / "npy").mkdir(exist_ok=True)
        np.save(tmp_path / "npy" / f"{case}.npy", maps)
        (tmp_path / "npz").mkdir(exist_ok=True)
        np.savez_compressed(tmp_path / "npz" / f"{case}.npz", samples=maps)
        write(tmp_path / "npz" / f"{case}.nii.gz", maps[0])
    (tmp_path / "4d").mkdir()
    for case in arrays:
        (tmp_path / case).rename(tmp_path / "4d" / case)
    found = {}
    for name, *pattern in (
        ("s",), ("4d",), ("npy", "--pattern", "{case}"), ("npz", "--pattern", "{case}"),
    ):  # fmt: skip
        output = tmp_path / f"of_{name}"
        code, printed = run(
            capsys, "--samples", tmp_path / name, "--output", output,
            "--largest-component", *pattern,
        )  # fmt: skip
        assert code == 0, printed.err
        found[name] = rows_of(output)
    for name in ("4d", "npy", "npz"):
        for case, row in found[name].items():
            told = dict(row, seconds=0, input="")
            expected = dict(found["s"][case], seconds=0, input="")
            if name == "npy":  # nothing tells its grid
                warned = told.pop("warnings")
                assert "nothing tells the size of a voxel" in warned
                # So that an array (x, y, z, n) is noticed.
                x, y, z = SHAPE
                count = len(arrays[case])
                assert f"read as {count} samples of {x}x{y}x{z} voxels" in warned
                expected.pop("warnings")
                assert told.pop("uncertain_where") == ""
                assert expected.pop("uncertain_where") != ""
                # Its axes run the other way: of other voxels, every second one.
                told["u_labelled_se"] = expected["u_labelled_se"]
                expected |= {n: None for n in expected if n.endswith(("_ml", "_mm"))}
            assert told == expected
    (one, _) = read_components(tmp_path / "of_npy")
    assert [one[n] for n in ("volume_ml", "diameter_mm", "x_mm")] == [""] * 3


def test_a_reference_needs_the_grid_of_the_samples(tmp_path, capsys):
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s" / "a.npy", maps := probability_maps())
    write(tmp_path / "truth" / "a.nii.gz", maps[0] >= 0.5)
    flags = ("--samples", tmp_path / "s", "--pattern", "{case}", "--output")
    code, _ = run(
        capsys, *flags, tmp_path / "o", "--references", tmp_path / "truth"
    )  # fmt: skip
    assert code == 4
    status = rows_of(tmp_path / "o")["a"]["status"]
    assert "the grid of the samples is unknown; put a NIfTI file" in status


def test_a_reference_without_the_label_is_told(tmp_path, capsys):
    """A Dice of 0 has a reason: another numbering, or a patient without the organ."""
    mask = (probability_maps()[0] >= 0.5).astype(np.uint8)
    for case, truth in {"other": 5 * mask, "none": 0 * mask, "same": mask}.items():
        for sample in range(3):
            moved = np.roll(mask, sample, axis=0)
            write(tmp_path / "s" / case / f"{sample}.nii.gz", moved)
        write(tmp_path / "truth" / f"{case}.nii.gz", truth)
    flags = ["--references", tmp_path / "truth", "--label", "1", "--output"]
    code, _ = run(capsys, "--samples", tmp_path / "s", *flags, tmp_path / "o")
    assert code == 0
    said = {case: row["warnings"] for case, row in rows_of(tmp_path / "o").items()}
    assert said["other"] == "the reference has no label 1, but 5"
    assert said["none"] == said["same"] == ""


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_masks_of_a_case_are_of_one_structure(tmp_path, capsys, kind):
    """Without --label the value of a mask says which: 1 in a sample, 2 in another."""
    mask = probability_maps()[0] >= 0.5
    empty = np.zeros_like(mask)
    for case, values in {
        "one": (1, 0, 1),
        "bytes": (0, 255, 255),
        "two": (1, 0, 2),
    }.items():
        for i, value in enumerate(values):
            array = (mask if value else empty).astype(kind) * kind(value)
            write(tmp_path / "s" / case / f"{i}.nii.gz", array)
        write(tmp_path / "truth" / f"{case}.nii.gz", mask.astype(np.uint8) * 255)
    write(tmp_path / "s" / "soft" / "0.nii.gz", probability_maps()[0])
    write(tmp_path / "s" / "soft" / "1.nii.gz", mask.astype(np.uint8) * 3)
    write(tmp_path / "truth" / "soft.nii.gz", mask)
    code, _ = run(
        capsys, "--samples", tmp_path / "s", "--output", tmp_path / "o",
        "--references", tmp_path / "truth",
    )  # fmt: skip
    assert code == 4
    status = {case: row["status"] for case, row in rows_of(tmp_path / "o").items()}
    told = status.pop("two")
    assert "2.nii.gz: label 2, but label 1 in" in told
    assert "--label" in told
    assert status == {"one": "ok", "bytes": "ok", "soft": "ok"}
    assert rows_of(tmp_path / "o")["one"]["dice"] == 1
    flags = ["--samples", tmp_path / "s", "--label", "1+2", "--output", tmp_path / "p"]
    assert run(capsys, *flags)[0] == 4
    rows = rows_of(tmp_path / "p")
    assert "1.nii.gz: has other labels alone" in rows.pop("soft")["status"]
    assert not any("failed" in row["status"] for row in rows.values())


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("place", [0, 3])
def test_probabilities_and_maps_without_the_label_are_not_mixed(
    tmp_path, capsys, kind, place
):
    """1 is a mask of the structure, or another label: nothing tells."""
    mask = (probability_maps()[0] >= 0.5).astype(kind)
    odd = {"none": 0 * mask, "same": 2 * mask, "mixed": mask}
    for case, one in odd.items():
        for i, array in enumerate(probability_maps(n=4)):
            other = one if i == place else array
            write(tmp_path / "s" / case / f"{i}.nii.gz", other)
    for i in range(3):
        write(tmp_path / "s" / "maps" / f"{i}.nii.gz", mask * (2 if i else 1))
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", "--label", "2"]
    assert run(capsys, *flags)[0] == 4
    status = {case: row["status"] for case, row in rows_of(tmp_path / "o").items()}
    told = status.pop("mixed")
    assert f"mixed/{place}.nii.gz: has other labels alone" in told
    assert "a probability map and a label map cannot be mixed under --label" in told
    assert status == {"none": "ok", "same": "ok", "maps": "ok"}


def test_a_reference_of_several_labels_needs_one_by_name(tmp_path, capsys):
    arrays = write_cases(tmp_path / "s", ("a",), hard=True)
    truth = np.where(np.arange(SHAPE[0])[:, None, None] < 7, 1, 2) * arrays["a"][0]
    write(tmp_path / "truth" / "a.nii.gz", truth.astype(np.uint8))
    flags = ["--samples", tmp_path / "s", "--references", tmp_path / "truth"]
    code, _ = run(capsys, *flags, "--output", tmp_path / "o")
    status = rows_of(tmp_path / "o")["a"]["status"]
    assert code == 4
    assert "truth/a.nii.gz: labels 1, 2; choose the structure by --label" in status
    assert run(capsys, *flags, "--output", tmp_path / "p", "--label", "1")[0] == 0


def test_cases_and_samples_that_are_not_taken_are_told(tmp_path, capsys):
    write_cases(tmp_path / "s", ("a", "b"), n=3)
    (tmp_path / "s" / "empty").mkdir()
    (tmp_path / "s" / "b" / "3.nii.gz").symlink_to(tmp_path / "nowhere")
    (tmp_path / "s" / "nrrd").mkdir()
    (tmp_path / "s" / "nrrd" / "1.nrrd").touch()
    code, printed = run(capsys, "--samples", tmp_path / "s", "--output", tmp_path / "o")
    assert code == 4
    assert "passed over 1 (no .nii.gz, .nii, .npz or .npy): " in printed.err
    told = json.loads((tmp_path / "o" / "run.json").read_text())["passed_over"]
    assert [path for (path,) in told.values()] == [str(tmp_path / "s/nrrd/1.nrrd")]
    status = {case: row["status"] for case, row in rows_of(tmp_path / "o").items()}
    assert status.pop("a") == "ok"
    assert "3.nii.gz: a broken link" in status.pop("b")
    assert "nrrd: holds no .nii.gz" in status.pop("nrrd")
    assert "empty: holds no .nii.gz" in status.pop("empty")
    assert not status


@pytest.mark.parametrize("labels", [(), ("--label", "all")])
def test_a_case_with_fewer_samples_than_most_is_told(tmp_path, capsys, labels):
    write_cases(tmp_path / "s", ("a", "b", "c"), n=3, hard=True)
    (tmp_path / "s" / "b" / "2.nii.gz").unlink()
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", *labels]
    assert run(capsys, *flags)[0] == 0
    rows = rows_of(tmp_path / "o")
    said = "has fewer samples than most cases: 2, others up to 3"
    assert [said in rows[case]["warnings"] for case in "abc"] == [False, True, False]
    # One more than the others have is no loss.
    (tmp_path / "s" / "c" / "2.nii.gz").unlink()
    assert run(capsys, *flags)[0] == 0
    rows = rows_of(tmp_path / "o").values()
    assert not any("fewer" in row["warnings"] for row in rows)


def test_a_case_with_more_samples_than_most_is_told(tmp_path, capsys):
    """An array (x, y, z, n) has as many samples as voxels along x."""
    for case in "abc":
        maps = probability_maps(n=3)
        np.save(
            tmp_path / f"{case}.npy", np.moveaxis(maps, 0, 3) if case == "b" else maps
        )
    flags = ["--samples", tmp_path, "--pattern", "{case}"]
    run(capsys, *flags, "--output", tmp_path / "o")
    said = {case: row["warnings"] for case, row in rows_of(tmp_path / "o").items()}
    told = f"has more samples than most cases: {SHAPE[0]}, others down to 3"
    assert [told in said[case] for case in "abc"] == [False, True, False]
    assert not any("fewer" in words for words in said.values())


@pytest.mark.parametrize(
    ("sform", "qform", "said"),
    [
        (1, 0, ""),
        (0, 0, "no geometry in the header: spacing and sides are a guess"),
        (1, 1, "sform and qform contradict each other by"),
    ],
)
@pytest.mark.parametrize("labels", [(), ("--label", "all")])
def test_a_doubtful_header_of_the_samples_is_told(
    tmp_path, capsys, sform, qform, said, labels
):
    for i, mask in enumerate(probability_maps(n=2) >= 0.5):
        image = nibabel.Nifti1Image(mask.astype(np.uint8), AFFINE)
        image.set_qform(AFFINE @ np.diag([1, 1, 10, 1]), qform)
        image.set_sform(AFFINE, sform)
        (tmp_path / "s" / "a").mkdir(parents=True, exist_ok=True)
        image.to_filename(tmp_path / "s" / "a" / f"{i}.nii.gz")
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o", *labels]
    assert run(capsys, *flags)[0] == 0
    warnings = rows_of(tmp_path / "o")["a"]["warnings"]
    assert said in warnings
    assert said or not any(w in warnings for w in ("header", "sform"))


def test_killed_and_run_again_is_the_undisturbed_output(tmp_path, capsys):
    write_cases(tmp_path / "samples")
    whole, output = tmp_path / "whole", tmp_path / "out"
    flags = ("--samples", tmp_path / "samples", "--review-fraction", "0", "--output")
    assert run(capsys, *flags, whole)[0] == 0
    assert json.loads((whole / "run.json").read_text())["review_fraction"] == "0.0"

    def made(folder):
        paths = [*folder.rglob("*.nii.gz"), *folder.rglob("*.png")]
        own = (path for path in paths if not path.name.startswith(".tmp"))
        return {path.relative_to(folder): path.read_bytes() for path in own}

    command = [sys.executable, "-m", "unc_jax.score", *flags, output]
    with subprocess.Popen([*map(str, command)], stderr=subprocess.PIPE) as process:
        while not any(output.rglob(".tmp-*.nii.gz")):
            assert process.poll() is None, process.communicate()
        process.kill()
    assert not (output / "cases.csv").exists()
    assert made(output).items() < made(whole).items()  # nothing is half there
    assert run(capsys, *flags, output)[0] == 0
    assert made(output) == made(whole)
    assert not list(output.rglob(".tmp-*"))
    tables = [rows_of(folder) for folder in (whole, output)]
    for row in itertools.chain(*(table.values() for table in tables)):
        row["seconds"] = 0
    assert tables[0] == tables[1]


def test_scored_cases_calibrate_others(tmp_path, capsys):
    cases = [f"c{i}" for i in range(8)]
    arrays = write_cases(tmp_path / "s", cases, hard=True)
    for i, case in enumerate(cases):
        truth = np.roll(arrays[case][0], i // 3, axis=0)
        write(tmp_path / "truth" / f"{case}.nii.gz", truth)
    first, second = tmp_path / "first", tmp_path / "second"
    flags = ["--samples", tmp_path / "s", "--output"]
    run(capsys, *flags, first, "--references", tmp_path / "truth")
    code, printed = run(
        capsys, *flags, second, "--calibrate", first / "cases.csv",
        "--level", 0.8, "--target-dice", 0.999,
    )  # fmt: skip
    assert code == 0, printed.err
    told = json.loads((second / "run.json").read_text())["calibrate_sha256"]
    assert told == hashlib.sha256((first / "cases.csv").read_bytes()).hexdigest()
    rows = rows_of(second)
    for row in rows.values():
        assert 0 <= row["dice_lower"] <= row["predicted_dice"] <= 1
        assert row["flag"] == "yes"  # nothing is that certain
        assert row["dice"] is None
    assert "u_labelled is left out" in printed.err  # masks have none
    assert "cv is left out" not in printed.err


def test_cv_of_voxels_of_another_size_is_left_out(tmp_path, capsys):
    arrays = write_cases(tmp_path / "s", [f"c{i}" for i in range(8)])
    fine = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    for case, maps in arrays.items():
        write(tmp_path / "truth" / f"{case}.nii.gz", (maps[0] >= 0.5).astype(np.uint8))
        for i, array in enumerate(maps):
            larger = array.repeat(2, 0).repeat(2, 1).repeat(2, 2)
            write(tmp_path / "fine" / case / f"{i}.nii.gz", larger, fine)
    first, flags = tmp_path / "first", ["--references", tmp_path / "truth"]
    run(capsys, "--samples", tmp_path / "s", "--output", first, *flags)
    predicted = {}
    for name in ("s", "fine"):
        out = tmp_path / f"of_{name}"
        _, printed = run(
            capsys, "--samples", tmp_path / name, "--output", out,
            "--calibrate", first / "cases.csv", "--level", 0.8,
        )  # fmt: skip
        assert ("cv is left out" in printed.err) == (name == "fine")
        predicted[name] = [row["predicted_dice"] for row in rows_of(out).values()]
    # With CV, eight times as large, every fine case would be beyond the worst.
    assert max(predicted["fine"]) == pytest.approx(max(predicted["s"]), abs=0.02)


def test_without_calibration_the_worst_share_goes_by_d_pw(tmp_path, capsys):
    write_cases(tmp_path / "s", [f"c{i}" for i in range(5)])
    flags = ["--samples", tmp_path / "s", "--output", tmp_path / "o"]
    code, _ = run(capsys, *flags, "--review-fraction", 0.2)
    assert code == 0
    rows = rows_of(tmp_path / "o").values()
    (flagged,) = [row for row in rows if row["flag"] == "yes"]
    assert flagged["d_pw"] == min(row["d_pw"] for row in rows)
    assert all(row["predicted_dice"] is None for row in rows)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--samples", "nowhere"], "no such folder"),
        (["--references", "nowhere"], "--references nowhere"),
        (["--calibrate", "nowhere.csv"], "nowhere.csv"),
        (["--target-dice", "0.9"], "--calibrate"),
        (["--level", "1.5"], "--level"),
        (["--label", "liver"], "--label"),
        (["--window", "5", "1"], "--window"),
        (["--stray"], "--stray"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_code_2(tmp_path, capsys, flags, said):
    write_cases(tmp_path / "s", ("a",), n=2)
    given = {"--samples": tmp_path / "s", "--output": tmp_path / "o"}
    code, printed = run(capsys, *itertools.chain(*given.items()), *flags)
    assert code == 2
    assert said in printed.err
    assert printed.err.count("\n") == 1
    assert not (tmp_path / "o" / "cases.csv").exists()


def test_a_case_that_fails_now_keeps_no_old_mask(tmp_path, capsys):
    write_cases(tmp_path / "s", ("a", "b"), n=2)
    output = tmp_path / "o"
    flags = ("--samples", tmp_path / "s", "--output", output)
    assert run(capsys, *flags)[0] == 0
    assert (output / "a" / "mask.nii.gz").exists()
    next((tmp_path / "s" / "a").iterdir()).write_bytes(b"torn")
    assert run(capsys, *flags)[0] == 4
    assert rows_of(output)["a"]["status"].startswith("failed")
    assert not list((output / "a").iterdir())
    assert not (output / "pictures" / "a.png").exists()
    assert (output / "b" / "mask.nii.gz").exists()
    # In the folder of the samples themselves nothing is removed.
    names = sorted((tmp_path / "s" / "a").iterdir())
    assert run(capsys, "--samples", tmp_path / "s", "--output", tmp_path / "s")[0] == 4
    assert sorted((tmp_path / "s" / "a").iterdir()) == names


@pytest.mark.parametrize(
    ("stranger", "samples", "output"),
    [
        ("s/a/mask.nii.gz", "s", "s"),  # a sample that is called as a map
        ("s/a/mask.nii.gz", "s", "link"),
        ("a/mask.nii.gz", "s", "."),  # an expert's, beside the samples
        ("o/a/case.json", "s", "o"),
        ("o/cases.csv", "s", "o"),
        ("o/run.json", "s", "o"),
        ("o/output.json", "s", "o"),
        ("o/study/summary.json", "s", "o"),
    ],
)
def test_files_of_others_are_never_replaced(
    tmp_path, capsys, stranger, samples, output
):
    folder = tmp_path / "f"
    write_cases(folder / "s", ("a",), n=3)
    shutil.copytree(folder / "s" / "a", folder / "truth")
    (folder / "truth" / "1.nii.gz").rename(folder / "truth" / "a.nii.gz")
    (folder / "link").symlink_to(folder / "s")
    (folder / stranger).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "truth" / "a.nii.gz", folder / stranger)
    before = contents(folder)
    code, printed = run(
        capsys, "--samples", folder / samples, "--output", folder / output,
        "--references", folder / "truth",
    )  # fmt: skip
    assert code == 2
    (line,) = printed.err.splitlines()
    assert f"error: {folder / output}" in line
    assert line.endswith("name another --output")
    assert contents(folder) == before


def test_a_table_that_calibrates_is_not_replaced_by_its_outcome(tmp_path, capsys):
    cases = [f"c{i}" for i in range(8)]
    arrays = write_cases(tmp_path / "s", cases)
    for case in cases:
        write(tmp_path / "truth" / f"{case}.nii.gz", arrays[case][0] >= 0.5)
    flags = ("--samples", tmp_path / "s", "--output", tmp_path / "o")
    assert run(capsys, *flags, "--references", tmp_path / "truth")[0] == 0
    before = contents(tmp_path)
    code, printed = run(capsys, *flags, "--calibrate", tmp_path / "o" / "cases.csv")
    assert code == 2
    assert "cases.csv: is read by this command" in printed.err
    assert contents(tmp_path) == before


def test_maps_among_the_samples_are_no_samples(tmp_path, capsys):
    write_cases(tmp_path / "s", ("a", "b"), n=3)
    flags = ("--samples", tmp_path / "s", "--output", tmp_path / "s")
    assert run(capsys, *flags)[0] == 0
    first = rows_of(tmp_path / "s")
    assert run(capsys, *flags)[0] == 0
    for case, row in rows_of(tmp_path / "s").items():
        assert row["n_samples"] == 3
        assert row["d_pw"] == first[case]["d_pw"]
    # A corrected mask is neither replaced nor counted as the samples' own.
    mask = tmp_path / "s" / "a" / "mask.nii.gz"
    mask.write_bytes(
        corrected := (tmp_path / "s" / "b" / "mask.nii.gz").read_bytes()[:-1]
    )
    assert run(capsys, *flags)[0] == 4
    assert "was changed after it was written" in rows_of(tmp_path / "s")["a"]["status"]
    assert mask.read_bytes() == corrected


def test_an_output_below_the_samples_is_no_case(tmp_path, capsys):
    write_cases(tmp_path / "s", ("a", "b"), n=3)
    flags = ("--samples", tmp_path / "s", "--output", tmp_path / "s" / "out")
    for _ in range(2):
        assert run(capsys, *flags)[0] == 0
        assert rows_of(tmp_path / "s" / "out").keys() == {"a", "b"}


def test_nothing_of_an_earlier_command_passes_for_this_one(tmp_path, capsys):
    arrays = write_cases(tmp_path / "s", [f"c{i}" for i in range(9)])
    for case, maps in arrays.items():
        write(tmp_path / "truth" / f"{case}.nii.gz", maps[0] >= 0.5)
    output = tmp_path / "o"
    flags = ("--samples", tmp_path / "s", "--output", output)
    assert run(capsys, *flags, "--references", tmp_path / "truth")[0] == 0
    (output / "study" / "notes.txt").write_text("of a user")
    assert run(capsys, *flags)[0] == 0
    assert [path.name for path in (output / "study").iterdir()] == ["notes.txt"]
    program = (
        "import signal, sys\n"
        "from unc_jax import score\n"
        "signal.signal(2, signal.default_int_handler)\n"
        "score.main(sys.argv[1:])\n"
    )
    command = [sys.executable, "-c", program, *map(str, flags)]
    begun = set(output.glob("c*/case.json"))
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        while begun <= set(output.glob("c*/case.json")):
            assert process.poll() is None, process.communicate()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; run again, which starts over"
    for name in ("report.html", "run.json", "cases.csv", "cases.unfinished.csv"):
        assert not (output / name).exists()
    assert run(capsys, *flags)[0] == 0


def test_samples_of_another_process(tmp_path, capsys):
    """Written by nibabel alone, as any other tool would."""
    program = (
        "import nibabel as nib, numpy as np, sys\n"
        "x, y, z = np.indices((12, 12, 12)) - 6\n"
        "for fold in range(5):\n"
        "    mask = (x * x + y * y + z * z < 12 + 2 * fold).astype(np.uint8) * 2\n"
        "    image = nib.Nifti1Image(mask, np.diag([2, 2, 2, 1]))\n"
        "    image.to_filename(f'{sys.argv[1]}/fold_{fold}_ball.nii.gz')\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    code, printed = run(
        capsys, "--samples", tmp_path, "--output", tmp_path / "out",
        "--pattern", "fold_{sample}_{case}.nii.gz", "--label", 2,
    )  # fmt: skip
    assert code == 0, printed.err
    x, y, z = np.indices((12, 12, 12)) - 6
    masks = np.stack([x * x + y * y + z * z < 12 + 2 * fold for fold in range(5)])
    expected, _, _ = by_hand(masks)
    row = rows_of(tmp_path / "out")["ball"]
    assert row["n_samples"] == 5
    assert row["d_pw"] == pytest.approx(expected["d_pw"])
    assert row["cv"] == pytest.approx(expected["cv"], rel=1e-5)
    with open(tmp_path / "out" / "cases.csv", encoding="utf-8") as file:
        assert next(csv.DictReader(file))["u_labelled"] == ""


def test_labels_by_name_are_those_of_the_data_set(tmp_path, capsys):
    array = np.zeros(SHAPE, np.uint8)
    array[3:6], array[6:8] = 1, 2
    for case, fold in itertools.product("ab", range(2)):
        write(tmp_path / "s" / f"fold_{fold}" / f"{case}.nii.gz", array)
    content = {"labels": {"background": 0, "liver": 1, "tumour": 2}}
    (tmp_path / "s" / "fold_0" / "dataset.json").write_text(json.dumps(content))
    flags = ["--samples", tmp_path / "s", "--pattern", "fold_{sample}/{case}"]
    volumes = {}
    for label in ("tumour", "2", "liver+2"):
        output = tmp_path / label
        code, _ = run(capsys, *flags, "--output", output, "--label", label)
        assert code == 0
        volumes[label] = rows_of(output)["a"]["volume_ml"]
    assert volumes["tumour"] == volumes["2"] == pytest.approx(2 * 120 * 9 / 1000)
    assert volumes["liver+2"] == pytest.approx(5 * 120 * 9 / 1000)
    code, printed = run(capsys, *flags, "--output", tmp_path / "o", "--label", "spleen")
    assert code == 2
    assert "fold_0 has background, liver, tumour" in printed.err


def test_dice_agrees_with_monai(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    monai_metrics = pytest.importorskip("monai.metrics")
    arrays = write_cases(tmp_path / "s", ("a",))
    truth = np.roll(arrays["a"][0] >= 0.5, 2, axis=0)
    write(tmp_path / "truth" / "a.nii.gz", truth)
    run(
        capsys, "--samples", tmp_path / "s", "--output", tmp_path / "o",
        "--references", tmp_path / "truth",
    )  # fmt: skip
    mask = arrays["a"].mean(axis=0) >= 0.5
    one, other = (
        torch.as_tensor(m[None, None].astype(np.float32)) for m in (mask, truth)
    )
    expected = monai_metrics.compute_dice(one, other).item()
    assert rows_of(tmp_path / "o")["a"]["dice"] == pytest.approx(expected, rel=1e-6)
