"""Samples of a segmentation that another tool made: masks or probability maps.

A NIfTI file holds labels or probabilities of one structure, an .npz may hold those of
several as channels: the files of `sample_arrays`.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import nifti
from unc_jax.data.label_names import LARGEST
from unc_jax.data.nifti import Geometry
from unc_jax.errors import InputError
from unc_jax.review.channels import (
    TOLERANCE,
    channels_of,
    indices_of,
    probabilities,
)
from unc_jax.review.sample_arrays import read_arrays
from unc_jax.review.structures import ANY, Structure

# Label maps have fewer labels: those of the whole body about 120.
_MANY_LABELS = 150
PROBABILITIES, OTHER_LABELS = "probabilities", "other labels"  # of a Sample's content


class Sample(NamedTuple):
    """A sample (x, y, z) in RAS+ order: foreground probabilities, or a mask of bool.

    value: stored foreground value of a mask, if no labels were named; 0 for bool,
    probabilities and empty masks, where it is unknown. content: PROBABILITIES of a map
    (x, y, z), OTHER_LABELS of one with labels but none of the named, or "".
    """

    array: np.ndarray
    geometry: Geometry
    value: float = 0
    content: str = ""


def read_samples(
    path: Path, structure: Structure = ANY, regions: Sequence[Structure] = ()
) -> Iterator[Sample]:
    """Reads one structure of the samples of a file, one after the other.

    Integers are labels; if the structure has no labels, they must be 0 and one other
    value. Floats within 0 ... 1 are probabilities of the structure; other floats must
    be whole numbers and are labels. regions: the structures of an .npz's channels, if
    these are not classes. Raises InputError that names the file for anything else,
    including NaN.
    """
    for array, geometry in read_arrays(path):
        if array.ndim == 4:
            place = channels_of(array, regions, path)
            found = probabilities(array, indices_of(place, structure, path), path)
            yield Sample(nifti.to_canonical(found, geometry), geometry)
        else:
            found, value = _foreground(array, structure.values, path)
            yield Sample(found, geometry, value, _content(array, found))


def read_mask(path: Path, labels: Sequence[int]) -> Sample:
    """Reads a mask of an organ with its tumours: all voxels that are not 0.

    They have one value, or several of `labels`. Raises InputError that names the file
    if they have others too, which are perhaps other organs.
    """
    array, geometry = read_labels(path)
    found = np.flatnonzero(np.bincount(array.ravel(order="K"))[1:]) + 1
    if len(found) > 1 and not np.isin(found, labels).all():
        raise InputError(
            f"{path}: has the labels {', '.join(map(str, found[:6]))}; a mask of the "
            f"organ is needed, or only labels of {', '.join(map(str, labels))}"
        )
    return Sample(array != 0, geometry)


def read_truth(
    path: Path, labels: Sequence[int] = (), ignored: Sequence[int] = ()
) -> tuple[Sample, str]:
    """Reads one structure of a reference: the union of `labels`, or its only label.

    Returns it with a warning, "" or that the reference has other labels alone: the
    structure may be absent, or have other labels there. Raises InputError that names
    the file if it has several labels and none is named, or labels that are `ignored`.
    """
    array, geometry = read_labels(path)
    check_labelled({one for one in ignored if (array == one).any()}, ignored, path)
    mask = _foreground(array, labels, path)[0]
    warning = ""
    if array.any() and not mask.any():
        warning = absence(labels, [int(one) for one in np.unique(array) if one])
    return Sample(mask, geometry), warning


def absence(labels: Sequence[int], there: Collection[int]) -> str:
    """Returns a warning if a reference has labels, but none of a structure's; or ""."""
    if not there or not {*labels}.isdisjoint(there):
        return ""
    wanted, found = (
        ", ".join(map(str, values)) for values in (labels, sorted(there)[:6])
    )
    return f"the reference has no label {wanted}, but {found}"


def check_labelled(
    there: Collection[int], ignored: Collection[int], path: Path
) -> None:
    """Raises InputError if a reference has labels of voxels that nobody labelled."""
    if unlabelled := {*there} & {*ignored}:
        raise InputError(
            f"{path}: has voxels to be ignored (label {min(unlabelled)}), which would "
            "count as background; label them, or leave the reference out"
        )


def read_labels(path: Path) -> nifti.Volume:
    """Reads a label map (x, y, z) of a NIfTI file, as `labels_of`."""
    array, geometry = nifti.read(path)
    return nifti.Volume(labels_of(array, path), geometry)


def labels_of(array: np.ndarray, path: Path) -> np.ndarray:
    """Returns a map (x, y, z) of whole numbers from 0 to LARGEST as integers.

    Raises InputError that names the file for others.
    """
    low, high = _finite_range(array, path)
    if array.dtype.kind == "f" and not _is_whole(array):
        raise InputError(
            f"{path}: probabilities of one structure; give several structures as "
            "labels, or as channels of an .npz"
        )
    if low < -TOLERANCE or high > LARGEST + TOLERANCE:
        raise InputError(f"{path}: labels are 0 to {LARGEST}")
    if array.dtype == bool:
        return array.view(np.uint8)
    _check_unscaled(array, path)
    return np.rint(array).astype(np.int32) if array.dtype.kind == "f" else array


def _foreground(
    array: np.ndarray, labels: Sequence[int], path: Path
) -> tuple[np.ndarray, float]:
    """Returns the foreground of a map, and its value, as in `Sample`."""
    if array.dtype.kind == "f":
        low, high = _finite_range(array, path)
        fits, whole = low >= -TOLERANCE and high <= 1 + TOLERANCE, _is_whole(array)
        # With --label whole numbers are labels: 1 need not be the requested one.
        if fits and not (labels and whole):
            value = 1 if whole and high > TOLERANCE else 0
            array = array.astype(np.float32, copy=False)
            return array if low >= 0 and high <= 1 else np.clip(array, 0, 1), value
        if not whole:
            raise InputError(
                f"{path}: values from {low:.3g} to {high:.3g} are neither "
                "probabilities nor labels; logits need a softmax or sigmoid first"
            )
        array = np.rint(array)
    _check_unscaled(array, path)
    if labels or array.dtype == bool:
        return np.isin(array, labels) if labels else array, 0
    found, value = array != 0, (array.max() or array.min()).item()
    if value and not np.array_equal(found, array == value):
        present = [value for value in np.unique(array).tolist() if value != 0]
        shown = ", ".join(f"{value:g}" for value in present[:6])
        raise InputError(
            f"{path}: labels {shown}; choose the structure by --label NUMBER, or all "
            "of them by --label all"
        )
    return found, value


def _check_unscaled(array: np.ndarray, path: Path) -> None:
    """Raises InputError for whole numbers that are probabilities times 100 or 255.

    With --label 1, voxels of probability 1/255 would be the structure. Such maps are
    recognised by their largest value, 100 or _MANY_LABELS to 255, if they hold four
    fifths of the values below it.
    """
    largest = int(array.max())
    if not (largest == 100 or _MANY_LABELS <= largest <= 255):
        return
    found = np.zeros(largest, bool)
    for one in np.moveaxis(array, int(np.argmax(np.abs(array.strides))), 0):
        found[one[(one > 0) & (one < largest)].astype(int)] = True
    if found.mean() > 0.8:
        scale = 100 if largest == 100 else 255
        raise InputError(
            f"{path}: {found.sum()} different values below {largest} are perhaps "
            f"probabilities times {scale}, and no labels; divide them by {scale}"
        )


def _content(array: np.ndarray, found: np.ndarray) -> str:
    """Returns what a map with this foreground holds, as in `Sample`.

    A map of zeros holds nothing, be it of labels or of probabilities.
    """
    if found.dtype != bool:
        return PROBABILITIES
    if found.any() or (array.max() <= TOLERANCE and array.min() >= -TOLERANCE):
        return ""
    return OTHER_LABELS


def _is_whole(array: np.ndarray) -> bool:
    """Tells whether floats (x, y, z) are whole numbers, up to rounding.

    Stops at the first slice in memory with other numbers; copies no volume.
    """
    slowest = int(np.argmax(np.abs(array.strides)))
    slices = np.moveaxis(array, slowest, 0)
    return all((np.abs(one - np.rint(one)) <= TOLERANCE).all() for one in slices)


def _finite_range(array: np.ndarray, path: Path) -> tuple[float, float]:
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{path}: holds NaN or infinity; repair the map")
    return low, high
