"""Samples of many structures: each structure is looked at where it lies.

Maps are read once. Of labels the map itself is kept, of channels the box of each around
its faintest probability, so that a hundred organs take little more than their volumes.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unc_jax.data import nifti, preprocess
from unc_jax.data.nifti import Geometry
from unc_jax.data.preprocess import Box
from unc_jax.errors import InputError
from unc_jax.review import channels, read_samples
from unc_jax.review.sample_arrays import read_arrays
from unc_jax.review.structures import Structure
from unc_jax.uncertainty.prediction import SPARSE, THRESHOLD

# Below, a probability is no part of a structure: -p log p is 0.007 nats there.
_FAINTEST = 1e-3


class BoxedPart(NamedTuple):
    """A structure where it lies: a box of the grid, and its voxels there."""

    box: Box
    array: np.ndarray  # bool of labels, float32 probabilities of channels


class LabelMap:
    """Structures of a label map (x, y, z)."""

    def __init__(self, array: np.ndarray, geometry: Geometry):
        """Finds the box of each label of integers (`read_samples.labels_of`)."""
        self.geometry = geometry
        self._array = array
        # Reversed: the map of a file has x running fastest.
        boxes = ndimage.find_objects(array.T)
        self._boxes = {v: box[::-1] for v, box in enumerate(boxes, start=1) if box}

    @property
    def labels(self) -> set[int]:
        """Returns the labels that are there."""
        return set(self._boxes)

    def part(self, structure: Structure) -> BoxedPart | None:
        """Returns a structure where it lies; None where it is not there."""
        box = hull([self._boxes[v] for v in structure.values if v in self._boxes])
        if box is None:
            return None
        return BoxedPart(box, preprocess.select(self._array[box], structure.values))


class Channels:
    """Structures of probabilities (channels, z, y, x): of classes, or of regions."""

    def __init__(
        self,
        array: np.ndarray,
        geometry: Geometry,
        regions: Sequence[Structure],
        path: Path,
    ):
        self.geometry = geometry
        self._path = path
        self._parts: dict[tuple[int, ...], BoxedPart | None] = {}
        self.labels: set[int] = set()
        for values, number in channels.channels_of(array, regions, path).items():
            if values in ((0,), ()):
                continue
            found = channels.probabilities(array, [number], path)
            found = nifti.to_canonical(found, geometry)
            faint = found >= _FAINTEST
            box = preprocess.bounding_box(faint) if faint.any() else None
            self._parts[values] = BoxedPart(box, found[box].copy()) if box else None
            if (found >= THRESHOLD).any():
                self.labels |= set(values)

    def part(self, structure: Structure) -> BoxedPart | None:
        """Returns a structure where it lies; None where it is not there.

        The labels of a structure that is no channel itself are added up. Raises
        InputError, naming the file, where they are no channels either.
        """
        if structure.values in self._parts:
            return self._parts[structure.values]
        if any((value,) not in self._parts for value in structure.values):
            raise InputError(
                f"{self._path}: {structure.name} is not one of its classes or regions"
            )
        parts = [self._parts[(value,)] for value in structure.values]
        found = [part for part in parts if part]
        box = hull([part.box for part in found])
        if box is None:
            return None
        return BoxedPart(box, np.minimum(sum(within(part, box) for part in found), 1.0))


def read_structures(
    path: Path, regions: Sequence[Structure] = ()
) -> Iterator[LabelMap | Channels]:
    """Reads all structures of the samples of a file, one sample after the other.

    Raises InputError, naming the file, for one that has none.
    """
    for array, geometry in read_arrays(path):
        if array.ndim == 4:
            yield Channels(array, geometry, regions, path)
        else:
            yield LabelMap(read_samples.labels_of(array, path), geometry)


def read_reference(path: Path) -> LabelMap:
    """Reads the label map of a reference."""
    return LabelMap(*read_samples.read_labels(path))


def hull(boxes: Sequence[Box]) -> Box | None:
    """Returns the smallest box around some boxes; None around none.

    It starts at places that `Prediction.sparse` of the whole grid holds too.
    """
    if not boxes:
        return None
    x, y, z = (
        slice(min(s.start for s in side) // SPARSE * SPARSE, max(s.stop for s in side))
        for side in zip(*boxes, strict=True)
    )
    return x, y, z


def within(part: BoxedPart | None, box: Box) -> np.ndarray:
    """Returns the voxels of a part in a box around it, 0 where it says nothing."""
    sides = [side.stop - side.start for side in box]
    if part is None:
        return np.zeros(sides, bool)
    whole = np.zeros(sides, part.array.dtype)
    place = tuple(
        slice(own.start - side.start, own.stop - side.start)
        for own, side in zip(part.box, box, strict=True)
    )
    whole[place] = part.array
    return whole
