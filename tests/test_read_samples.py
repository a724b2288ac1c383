import os

import numpy as np
import pytest
from samples import AFFINE, SHAPE, probability_maps, write

from unc_jax.data import nifti
from unc_jax.errors import InputError
from unc_jax.review.find_samples import find_samples
from unc_jax.review.read_samples import read_sample, same_grid
from unc_jax.review.structures import Structure


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("{case}/{sample}", ["liver_2/0.nii.gz", "liver_2/1.nii", "liver_10/0.npz"]),
        ("fold_{sample}/{case}", ["fold_0/liver_2.nii.gz", "fold_1/liver_10.nii.gz"]),
        ("{case}_{sample}.nii.gz", ["liver_2_0.nii.gz", "liver_10_0.nii.gz"]),
        ("f*{sample}/val/{case}", ["fa0/val/liver_2.nii", "fb1/val/liver_10.nii"]),
    ],
)
def test_patterns(tmp_path, pattern, files):
    for name in [*files, "liver_2/plans.json", ".hidden/0.nii.gz"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = find_samples(tmp_path, pattern)
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
    (paths,) = find_samples(tmp_path).values()
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
        ("{case}", ["a.nii.gz"], "{sample}"),
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


@pytest.mark.parametrize(
    ("value", "said"), [(np.nan, "NaN"), (-7.5, "no probabilities"), (np.inf, "NaN")]
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
    with pytest.raises(InputError, match="says nothing of its grid"):
        read_sample(tmp_path / "a.npz", Structure("x", (1,)))
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
    (paths,) = find_samples(tmp_path).values()
    assert [path.name for path in paths] == ["1.npz"]


def test_an_npz_may_carry_its_affine(tmp_path):
    array = probability_maps()[0]
    np.savez(tmp_path / "a.npz", anything=array, affine=AFFINE)
    write(tmp_path / "b.nii.gz", array)
    one, other = (read_sample(tmp_path / name) for name in ("a.npz", "b.nii.gz"))
    np.testing.assert_array_equal(one.array, other.array)
    assert same_grid(one.geometry, other.geometry)


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
