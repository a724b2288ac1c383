import json
import os

import nibabel
import numpy as np
import pytest
from samples import AFFINE, SHAPE, probability_maps, write

from unc_jax.data import nifti
from unc_jax.data.geometry import Geometry, same_grid
from unc_jax.errors import InputError
from unc_jax.review.find_samples import find_samples
from unc_jax.review.read_samples import (
    read_mask,
    read_samples,
    read_truth,
)
from unc_jax.review.read_structures import read_reference, read_structures
from unc_jax.review.sample_arrays import Unplaced
from unc_jax.review.sample_pattern import parser_of
from unc_jax.review.structures import ANY, Structure

TURNED = AFFINE[:, [2, 0, 1, 3]]  # the first axis of the file is the scan's upward


def read_sample(*given):
    (one,) = read_samples(*given)
    return one


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("{case}/{sample}", ["liver_2/0.nii.gz", "liver_2/1.nii", "liver_10/0.npz"]),
        ("fold_{sample}/{case}", ["fold_0/liver_2.nii.gz", "fold_1/liver_10.nii.gz"]),
        ("{case}_{sample}.nii.gz", ["liver_2_0.nii.gz", "liver_10_0.nii.gz"]),
        ("f*{sample}/val/{case}", ["fa0/val/liver_2.nii", "fb1/val/liver_10.nii"]),
        ("{case}", ["liver_2.npy", "liver_10.nii.gz"]),
        ("{case}/*", ["liver_2/all.npz", "liver_10/all.nii.gz"]),
    ],
)
def test_patterns(tmp_path, pattern, files):
    for name in [*files, "liver_2/plans.json", ".hidden/0.nii.gz"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_samples(tmp_path, pattern).samples
    assert list(found) == ["liver_2", "liver_10"]  # natural order
    taken = [
        path.relative_to(tmp_path).as_posix() for c in found.values() for path in c
    ]
    assert sorted(taken) == sorted(files)


def test_samples_in_natural_order_and_probabilities_before_labels(tmp_path):
    names = ["10.nii.gz", "2.nii.gz", "2.npz", "1.nii.gz"]
    for name in names:
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c" / name).touch()
    (paths,) = find_samples(tmp_path).samples.values()
    assert [path.name for path in paths] == ["1.nii.gz", "2.npz", "10.nii.gz"]


@pytest.mark.parametrize(
    ("pattern", "files", "said"),
    [
        ("{case}/{sample}", [], "no .nii.gz"),
        ("{case}/{sample}", ["fold_0/v/a.nii.gz"], "there is fold_0/v/a.nii.gz"),
        (
            "{case}/{sample}",
            ["fold_0/a.nii.gz", "fold_1/a.nii.gz"],
            "look like samples",
        ),
        (
            "{case}/{sample}",
            ["fold_0/a.nii.gz", "fold_1/a.nii.gz", "ensemble/a.nii.gz"],
            "folders such as fold_0 look like samples",
        ),
        ("{sample}_{case}", ["a b_c_d.nii.gz"], "in two ways, case d or c_d"),
        ("{sample}", ["a.nii.gz"], "{case}"),
        ("{case}/{case}/{sample}", ["a.nii.gz"], "once each"),
    ],
)
def test_what_no_samples_are_found_for(tmp_path, pattern, files, said):
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError) as error:
        find_samples(tmp_path, pattern)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_labels_of_a_multi_label_map(tmp_path):
    array = np.zeros(SHAPE, np.uint8)
    array[1], array[2] = 1, 2
    for kind in (np.uint8, np.float32):
        write(path := tmp_path / "a.nii.gz", array.astype(kind))
        with pytest.raises(InputError, match=r"labels 1, 2; choose .* --label"):
            read_sample(path)
        # x is stored from right to left.
        assert np.flatnonzero(
            read_sample(path, Structure("x", (2,))).array.any((1, 2))
        ) == [11]
        assert read_sample(path, Structure("x", (1, 2))).array.sum() == 2 * 12 * 10
        assert not read_sample(path, Structure("x", (3,))).array.any()


@pytest.mark.parametrize(("largest", "scale"), [(100, 100), (150, 255), (255, 255)])
@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.float32])
def test_scaled_probabilities_are_no_labels(tmp_path, largest, scale, kind):
    maps = np.linspace(0, largest, np.prod(SHAPE)).round().astype(kind).reshape(SHAPE)
    write(path := tmp_path / "a.nii.gz", maps)
    said = f"a.nii.gz: {largest - 1} different values .* divide them by {scale}"
    for read in (
        lambda: read_sample(path),
        lambda: read_sample(path, Structure("x", (1,))),
        lambda: list(read_structures(path)),
        lambda: read_reference(path),
    ):
        with pytest.raises(InputError, match=said):
            read()
    # A tool may store three labels as 1, 2 and 255, or have many.
    for labels in ((1, 2, 255), range(1, 118), (*range(1, 61), 100)):
        array = np.zeros(SHAPE, kind)
        array.reshape(-1)[: len(labels)] = labels
        write(path, array)
        assert read_sample(path, Structure("x", (1,))).array.sum() == 1
        assert read_reference(path).labels == set(labels)


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "NaN"), (-7.5, "neither prob"), (np.inf, "NaN")]
)
def test_what_is_no_probability(tmp_path, value, said):
    array = probability_maps()[0]
    array[0, 0, 0] = value
    write(tmp_path / "a.nii.gz", array)
    with pytest.raises(InputError, match=said):
        read_sample(tmp_path / "a.nii.gz")


def test_classes_of_an_npz_lie_on_the_grid_of_the_file_beside(tmp_path):
    foreground = probability_maps()[0]
    classes = np.stack([1 - foreground, foreground * 0.75, foreground * 0.25])
    np.savez(tmp_path / "a.npz", probabilities=classes.transpose(0, 3, 2, 1))
    alone = read_sample(tmp_path / "a.npz", Structure("x", (1,)))
    assert isinstance(alone.geometry, Unplaced)
    write(tmp_path / "a.nii.gz", foreground)
    expected = nifti.read(tmp_path / "a.nii.gz").array
    np.testing.assert_allclose(
        read_sample(tmp_path / "a.npz", Structure("x", (1, 2))).array,
        expected,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        read_sample(tmp_path / "a.npz", Structure("x", (2,))).array,
        expected * 0.25,
        atol=1e-6,
    )
    for labels in ((), (3,)):
        with pytest.raises(InputError, match="3 classes"):
            read_sample(tmp_path / "a.npz", Structure("x", labels))


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("plans.json", "image_reader_writer"),
        ("dataset.json", "overwrite_image_reader_writer"),
    ],
)
def test_channels_of_a_reader_that_reorients_are_not_mirrored(tmp_path, name, field):
    """nnU-Net then stores channels in RAS+ order, and the mask in that of the scan."""
    foreground = probability_maps()[0]
    geometry = Geometry(SHAPE, TURNED)
    write(tmp_path / "a.nii.gz", foreground >= 0.5, TURNED)
    expected = nifti.to_canonical(foreground, geometry)
    classes = np.stack([1 - expected, expected]).transpose(0, 3, 2, 1)
    np.savez(tmp_path / "a.npz", probabilities=classes)
    file = tmp_path / name
    file.write_text(json.dumps({field: "NibabelIOWithReorient"}))
    for structure in (ANY, Structure("x", (1,))):
        sample = read_sample(tmp_path / "a.npz", structure)
        np.testing.assert_allclose(sample.array, expected, atol=1e-6)
        assert sample.geometry.shape == SHAPE
    (found,) = read_structures(tmp_path / "a.npz")
    part = found.part(Structure("x", (1,)))
    np.testing.assert_allclose(part.array, expected[part.box], atol=1e-6)
    assert find_samples(tmp_path, "{case}").passed_over == ()
    file.write_text(json.dumps({field: "SimpleITKIO"}))
    with pytest.raises(InputError, match=r"a\.npz: shape .* differs"):
        read_sample(tmp_path / "a.npz")


def test_classes_that_are_not_those_of_the_mask_beside_are_refused(tmp_path):
    """They are of another run, or mirrored."""
    foreground = probability_maps()[0]
    foreground[7:] = 0
    classes = np.stack([1 - foreground, foreground]).transpose(0, 3, 2, 1)
    np.savez(tmp_path / "a.npz", probabilities=classes)
    write(tmp_path / "a.nii.gz", foreground >= 0.5)
    assert read_sample(tmp_path / "a.npz").array.max() > 0.5
    write(tmp_path / "a.nii.gz", foreground[::-1] >= 0.5)
    with pytest.raises(InputError, match=r"a\.npz: .* 0% of the mask a\.nii\.gz"):
        read_sample(tmp_path / "a.npz")
    write(tmp_path / "a.nii.gz", np.zeros(SHAPE, bool))
    assert read_sample(tmp_path / "a.npz").array.max() > 0.5
    write(tmp_path / "a.nii.gz", 100 * (foreground[::-1] >= 0.5).astype(np.uint8))
    assert read_sample(tmp_path / "a.npz").array.max() > 0.5


def test_regions_are_no_classes(tmp_path):
    """Channels of a sigmoid each: their numbers are no labels."""
    write(tmp_path / "a.nii.gz", probability_maps(1)[0] >= 0.5)
    foreground = probability_maps(1)[0]
    regions = np.stack([foreground, foreground * 0.5]).transpose(0, 3, 2, 1)
    np.savez(tmp_path / "a.npz", probabilities=regions.astype(np.float16))
    with pytest.raises(InputError, match=r"a\.npz: its channels sum to .* regions"):
        read_sample(tmp_path / "a.npz", Structure("x", (1,)))
    classes = np.stack([1 - regions[0], regions[0]]).astype(np.float16)
    np.savez(tmp_path / "a.npz", probabilities=classes)
    assert read_sample(tmp_path / "a.npz", Structure("x", (1,))).array.shape == SHAPE


def test_pipes_are_no_samples(tmp_path):
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "1.npz").touch()
    os.mkfifo(tmp_path / "c" / "2.npz")
    (paths,) = find_samples(tmp_path).samples.values()
    assert [path.name for path in paths] == ["1.npz"]


def test_version_1_of_nnunet_calls_its_classes_softmax(tmp_path):
    liver = probability_maps(n=1)[0]
    classes = np.stack([1 - liver, liver]).transpose(0, 3, 2, 1)  # (c, z, y, x)
    np.savez(tmp_path / "1.npz", softmax=classes)
    found = read_sample(tmp_path / "1.npz", Structure("liver", (1,)))
    np.testing.assert_allclose(found.array, liver, atol=1e-6)


def test_a_mask_of_an_organ_has_one_label_or_those_of_the_organ(tmp_path):
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5], labels[6:8] = 1, 2
    path = tmp_path / "mask.nii.gz"
    write(path, labels)
    assert read_mask(path, [1, 2]).array.sum() == (labels > 0).sum()
    with pytest.raises(InputError, match=r"has the labels 1, 2; .* labels of 1, 3"):
        read_mask(path, [1, 3])
    write(path, np.where(labels == 1, 255, 0).astype(np.uint8))
    assert read_mask(path, [1, 2]).array.sum() == (labels == 1).sum()


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
def test_labels_of_a_reference_may_be_large(tmp_path, dtype):
    """FreeSurfer numbers structures from 1000 on."""
    labels = np.zeros(SHAPE, dtype)
    labels[2:5] = 1001
    path = tmp_path / "reference.nii.gz"
    nibabel.Nifti1Image(labels, AFFINE).to_filename(path)
    truth, warning = read_truth(path, [1001])
    assert truth.array.sum() == (labels == 1001).sum()
    assert warning == ""
    assert read_reference(path).labels == {1001}
    assert read_mask(path, [1, 2]).array.sum() == (labels > 0).sum()


@pytest.mark.parametrize(
    ("value", "said"),
    [(-1, "labels are 0 to"), (40000, "labels are 0 to"), (0.5, "probabilities of")],
)
def test_what_is_no_label_is_refused(tmp_path, value, said):
    labels = np.zeros(SHAPE, np.float32)
    labels[3] = value
    nibabel.Nifti1Image(labels, AFFINE).to_filename(tmp_path / "reference.nii.gz")
    for read in (read_reference, read_truth):
        with pytest.raises(InputError, match=rf"reference\.nii\.gz: {said}"):
            read(tmp_path / "reference.nii.gz")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_two_files_of_one_sample_are_no_choice_to_make(tmp_path):
    touch(tmp_path, "a/1.nii", "a/1.nii.gz", "b/1.npz", "b/1.npy", "c/1.npz")
    touch(tmp_path, "c/1.nii.gz", "c/2.npy")
    found = find_samples(tmp_path)
    assert list(found.problems) == ["a", "b"]
    assert "1.nii.gz and 1.nii are the same sample 1; rename" in found.problems["a"]
    assert "1.npz and 1.npy are the same sample 1; rename" in found.problems["b"]
    assert [path.name for path in found.samples["c"]] == ["1.npz", "2.npy"]
    touch(tmp_path / "x", "a.nii", "a.nii.gz")
    both = find_samples(tmp_path / "x", "{case}")
    assert "are the same case; rename" in both.problems["a"]


@pytest.mark.parametrize(
    ("pattern", "name", "case", "sample"),
    [
        ("r{sample}_{case}", "r0_site_01", "site_01", "0"),
        ("{case}_{sample}", "site_01_0", "site_01", "0"),
        ("{case}_fold_{sample}", "a_fold_1_best", "a", "1_best"),
    ],
)
def test_a_sample_within_a_name_has_no_separators_if_that_fits(
    tmp_path, pattern, name, case, sample
):
    touch(tmp_path, f"{name}.nii")
    assert parser_of(pattern)(f"{name}.nii") == {"case": case, "sample": sample}
    assert list(find_samples(tmp_path, pattern).samples) == [case]


def test_a_reference_beside_the_samples_is_none_of_them(tmp_path):
    touch(tmp_path, "a/s_0.nii", "a/s_1.nii", "a/label.nii", "b/0.nii", "b/gt_b.nii")
    touch(tmp_path, "c/manual.nii", "d/rater_0.nii", "d/rater_1.nii")
    found = find_samples(tmp_path)
    assert list(found.problems) == ["a"]
    assert "a/label.nii: is it a sample? Move references" in found.problems["a"]
    assert list(found.samples) == ["a", "b", "c", "d"]


def test_a_star_takes_no_part_of_a_name(tmp_path):
    touch(tmp_path, "fold_1/a.nii", "fold_11/a.nii", "fold_2/a.nii")
    (paths,) = find_samples(tmp_path, "*{sample}/{case}").samples.values()
    folders = [path.parent.name for path in paths]
    assert folders == ["fold_1", "fold_2", "fold_11"]


def test_every_file_that_is_no_sample_is_told(tmp_path):
    touch(tmp_path, "a/1.nii", "a/1.pkl", "a/._1.nii", "dataset.json", "b.nii.gz")
    touch(tmp_path, "a/deep/2.nii", "a/deep/deeper/3.nii", "out/.lock-holder")
    touch(tmp_path, "out/a/mask.nii.gz", "nrrd/1.nrrd", "large/1.NII.GZ", ".git/x")
    touch(tmp_path, "links/2.nii.gz", "far/a/b/1.nii")
    for name in ("empty", "pictures"):
        (tmp_path / name).mkdir()
    for name in ("links/1.nii.gz", "gone"):
        (tmp_path / name).symlink_to(tmp_path / "nowhere")
    found = find_samples(tmp_path)
    reasons = {}
    for path, reason in found.passed_over:
        name = path.relative_to(tmp_path).as_posix()
        reasons.setdefault(reason, set()).add(name)
    assert reasons == {
        "does not fit the pattern": {"b.nii.gz", "a/deep/2.nii"},
        "deeper than the pattern": {"a/deep/deeper", "far/a/b"},
        "hidden": {"a/._1.nii", ".git"},
        "no .nii.gz, .nii, .npz or .npy": {"a/1.pkl", "nrrd/1.nrrd", "large/1.NII.GZ"},
        "an output": {"out"},
    }
    assert set(found.problems) == {"nrrd", "large", "links", "empty", "gone", "far"}
    assert "links/1.nii.gz: a broken link" in found.problems["links"]
    others = set(found.problems) - {"links"}
    assert all("holds no .nii.gz" in found.problems[case] for case in others)
    assert set(found.samples) == {"a", *found.problems}


def test_an_npz_may_carry_its_affine(tmp_path):
    array = probability_maps()[0]
    np.savez(tmp_path / "a.npz", anything=array, affine=AFFINE)
    write(tmp_path / "b.nii.gz", array)
    one, other = (read_sample(tmp_path / name) for name in ("a.npz", "b.nii.gz"))
    np.testing.assert_array_equal(one.array, other.array)
    assert same_grid(one.geometry, other.geometry)


@pytest.mark.parametrize("kind", [np.float16, np.longdouble, np.int32])
def test_an_affine_of_an_npz_is_of_numbers_of_any_size(tmp_path, kind):
    np.savez(tmp_path / "a.npz", probability_maps()[0], affine=AFFINE.astype(kind))
    found = read_sample(tmp_path / "a.npz").geometry.affine
    np.testing.assert_array_equal(found, AFFINE.astype(kind).astype(float))


@pytest.mark.parametrize(
    "content", [b"", b"no archive", None], ids=["empty", "text", "pickle"]
)
def test_a_broken_npz(tmp_path, content):
    path = tmp_path / "a.npz"
    if content is None:
        np.savez(path, probabilities=np.array([{"a": 1}], dtype=object))
    else:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz: cannot be read"):
        read_sample(path)


@pytest.mark.parametrize("kind", ["nifti", "npy", "npz", "big-endian", "plain"])
def test_a_stack_is_its_samples_one_after_the_other(tmp_path, kind):
    maps = probability_maps(n=3)
    for i, one in enumerate(maps):
        write(tmp_path / "single" / f"{i}.nii.gz", one)
    expected = [read_sample(p) for p in sorted((tmp_path / "single").iterdir())]
    path = tmp_path / "a.npy"
    if kind == "nifti":
        path = tmp_path / "a.nii.gz"
        nibabel.Nifti1Image(np.moveaxis(maps, 0, 3), AFFINE).to_filename(path)
    elif kind == "npz":
        path = tmp_path / "a.npz"
        np.savez(path, maps, affine=AFFINE)
    else:
        np.save(path, maps.astype(">f4") if kind == "big-endian" else maps)
        if kind != "plain":
            write(tmp_path / "a.nii.gz", maps[0])
    found = list(read_samples(path))
    assert len(found) == 3
    if kind == "plain":
        assert isinstance(found[0].geometry, Unplaced)
        np.testing.assert_array_equal(found[2].array, maps[2])
        return
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.array, other.array)
        assert same_grid(one.geometry, other.geometry)


def _huge(path):
    with open(path, "wb") as file:
        header = {
            "descr": "<f4",
            "fortran_order": False,
            "shape": (9, 1 << 20, 1 << 20, 9),
        }
        np.lib.format.write_array_header_1_0(file, header)


BAD_STACKS = {
    "a.npy": [
        (_huge, "cannot be read"),
        (lambda p: np.save(p, np.zeros((2, 2))), r"float64 of shape \(2, 2\)"),
        (lambda p: np.save(p, np.zeros((1, 2, 3, 4, 5))), "shape"),
        (lambda p: np.save(p, np.zeros((0, 3, 4, 5))), "shape"),
        (lambda p: np.save(p, np.full((3, 4, 5), "x")), "<U1 of shape"),
        (lambda p: np.save(p, np.array([{}], object)), "cannot be read"),
        (lambda p: p.write_bytes(b"\x80\x04]."), "cannot be read"),
    ],
    "a.npz": [
        (lambda p: np.savez(p, np.zeros((2, 3, 4, 5)), affine=np.eye(3)), "affine"),
        (lambda p: np.savez(p, np.zeros((2, 3, 4, 5)), affine=np.eye(4) * 0), "affine"),
        *(
            (
                lambda p, kind=kind: np.savez(
                    p, np.zeros((2, 3, 4, 5)), affine=np.eye(4).astype(kind)
                ),
                r"a\.npz: its affine is not an invertible 4x4 matrix",
            )
            for kind in (str, bool, complex)
        ),
    ],
    "several.npz": [
        (
            lambda p: np.savez(p, a=np.zeros((3, 4, 5)), b=np.ones((3, 4, 5))),
            "has the arrays a, b; keep only",
        ),
        (lambda p: np.savez(p, affine=np.eye(4)), "cannot be read"),
    ],
    "a.nii": [
        (
            lambda p: nibabel.Nifti1Image(
                np.zeros((2, 3, 4, 5, 2), np.uint8), np.eye(4)
            ).to_filename(p),
            r"shape \(2, 3, 4, 5, 2\); it must be \(x, y, z\) or \(x, y, z, n\)",
        ),
    ],
}


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [(name, *one) for name, all_ in BAD_STACKS.items() for one in all_],
)
def test_a_file_that_is_no_stack_is_named_in_one_line(tmp_path, name, make, said):
    make(tmp_path / name)
    with pytest.raises(InputError, match=said) as error:
        list(read_samples(tmp_path / name))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_stack_cut_short(tmp_path):
    maps = np.moveaxis(probability_maps(n=3), 0, 3)
    path = tmp_path / "a.nii"
    nibabel.Nifti1Image(maps, AFFINE).to_filename(path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match="truncated"):
        list(read_samples(path))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("place", [(0, 0, 0), (-1, -1, -1), (0, -1, 0)])
def test_one_broken_number_tells_probabilities_from_labels(tmp_path, order, place):
    array = np.zeros(SHAPE, np.float32)
    array[1] = 1
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    assert read_sample(tmp_path / "a.npy", Structure("x", (1,))).array.dtype == bool
    array[place] = 0.25
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    found = read_sample(tmp_path / "a.npy", Structure("x", (1,))).array
    np.testing.assert_array_equal(found, array)
    array[place] = 1.25
    np.save(tmp_path / "a.npy", np.asarray(array, order=order))
    with pytest.raises(InputError, match="nor labels"):
        read_sample(tmp_path / "a.npy", Structure("x", (1,)))


def _turned(affine, degrees):
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (lambda a: a, True),
        (lambda a: a @ np.diag([0.709 / 0.7, 1, 1, 1]), False),  # 2.3 mm in the end
        (lambda a: a @ np.diag([1 + 1e-5, 1, 1, 1]), True),
        (lambda a: a + np.outer([0.1, 0, 0, 0], [0, 0, 0, 1]), False),
        (lambda a: _turned(a, 0.2), False),  # by a degree's fifth, 1.2 mm in the end
    ],
)
def test_grids_are_compared_where_their_corners_lie(change, same):
    """A wrong spacing adds up, from voxel to voxel."""
    affine = np.diag([0.7, 0.7, 1.5, 1.0])
    affine[:3, 3] = -80, -90, -1200
    one, other = (Geometry((256, 256, 120), a) for a in (affine, change(affine)))
    assert same_grid(one, other) is same
    flipped = affine @ np.diag([-1, 1, 1, 1.0])
    flipped[0, 3] += 255 * affine[0, 0]
    assert same_grid(one, Geometry((256, 256, 120), flipped))


def test_grids_of_a_rotation_and_of_a_matrix_are_the_same():
    """A header may tell its grid by a quaternion, of float32 numbers."""
    for degrees in np.linspace(-20, 20, 41):
        affine = _turned(np.diag([-0.7, -0.7, 1.5, 1.0]), degrees)
        affine[:3, 3] = 180.3, 170.7, -1200.1
        header = nibabel.Nifti1Header()
        header.set_qform(affine, 1)
        shape = 512, 512, 400
        assert same_grid(Geometry(shape, affine), Geometry(shape, header.get_qform()))
