"""Samples and reference of one case, read once, reduced structure by structure."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data.geometry import Geometry, same_grid
from unc_jax.data.preprocess import Box
from unc_jax.errors import InputError
from unc_jax.review.case_files import file_of_case
from unc_jax.review.channels import check_not_classes
from unc_jax.review.read_samples import (
    OTHER_LABELS,
    PROBABILITIES,
    absence,
    check_labelled,
    read_samples,
    read_truth,
)
from unc_jax.review.read_structures import (
    BoxedPart,
    LabelMap,
    hull,
    read_reference,
    read_structures,
    within,
)
from unc_jax.review.sample_arrays import Unplaced
from unc_jax.review.structures import Structure, Wanted
from unc_jax.uncertainty.host_samples import reduce_maps
from unc_jax.uncertainty.measures import THRESHOLD
from unc_jax.uncertainty.prediction import Prediction

_NOWHERE = (
    slice(0, 1),
    slice(0, 1),
    slice(0, 1),
)  # the box of a structure that is nowhere


class Reduced(NamedTuple):
    """A structure of a case: its reduced samples in a box that contains all of them.

    reference: mask (x, y, z) in that box; None without a reference. warning: about the
    reference, or "".
    """

    structure: Structure
    box: Box
    outcome: Prediction
    reference: np.ndarray | None
    warning: str = ""

    @property
    def mask(self) -> np.ndarray:
        return self.outcome.mean >= THRESHOLD


def reduce_one(
    paths: Sequence[Path], wanted: Wanted, reference: Path | None
) -> tuple[Geometry, Reduced]:
    """Reads one structure's samples, one after the other; the box is the whole grid.

    Returns the grid and the structure. Raises InputError that names the file if it
    cannot be read, is on another grid or, without --label, has another mask value;
    with --label, if it has other labels alone and another sample is probabilities.
    """
    (structure,) = wanted.listed
    grids: list[Geometry] = []

    def maps() -> Iterator[np.ndarray]:
        """Yields the samples, checked against those before, one in memory."""
        values: dict[float, Path] = {}
        contents: dict[str, Path] = {}
        for path in paths:
            for one in read_samples(path, structure, wanted.regions):
                grids.append(one.geometry)
                _check_grid(path, one.geometry, grids[0], str(paths[0]))
                if one.value:
                    values.setdefault(one.value, path)
                _check_value(values)
                contents.setdefault(one.content, path)
                _check_content(contents)
                yield one.array

    outcome = reduce_maps(maps())
    check_not_classes(outcome, str(paths[0]))
    truth, warning = None, ""
    if reference is not None:
        known, warning = read_truth(reference, structure.values, wanted.ignored)
        _check_grid(reference, known.geometry, grids[0], "the samples")
        truth = known.array
    x, y, z = (slice(0, size) for size in grids[0].canonical_shape)
    return grids[0], Reduced(structure, (x, y, z), outcome, truth, warning)


def reduce_several(
    paths: Sequence[Path], wanted: Wanted, reference: Path | None
) -> tuple[Geometry, Iterator[Reduced]]:
    """Reads all samples; returns their grid and an iterator over the structures.

    Structures with more labels come first. Raises InputError as `reduce_one` does.
    """
    samples = []
    for path in paths:
        samples.extend(read_structures(path, wanted.regions))
        _check_grid(path, samples[-1].geometry, samples[0].geometry, str(paths[0]))
    truth = None
    if reference is not None:
        truth = read_reference(reference)
        check_labelled(truth.labels, wanted.ignored, reference)
        _check_grid(reference, truth.geometry, samples[0].geometry, "the samples")
    labels = set().union(*(one.labels for one in (*samples, truth) if one))
    structures = sorted(wanted.of_case(labels), key=lambda one: -len(one.values))

    def found() -> Iterator[Reduced]:
        """Yields the structures, reduced one after the other."""
        for one in structures:
            parts = [sample.part(one) for sample in samples]
            reduced = _reduce(one, parts, truth)
            if reduced.mask.shape == samples[0].geometry.canonical_shape:
                check_not_classes(reduced.outcome, str(paths[0]))
            yield reduced

    return samples[0].geometry, found()


def reference_of(case: str, folder: Path | None) -> Path | None:
    """Returns the file of a case's reference; InputError if the folder has none."""
    path = file_of_case(folder, case) if folder else None
    if folder and path is None:
        raise InputError(f"{folder}: no {case}.nii.gz or {case}.nii")
    return path


def _reduce(
    structure: Structure,
    parts: Sequence[BoxedPart | None],
    known: LabelMap | None,
) -> Reduced:
    reference = known.part(structure) if known else None
    boxes = [part.box for part in (*parts, reference) if part]
    box = hull(boxes) or _NOWHERE
    outcome = reduce_maps(within(part, box) for part in parts)
    truth = within(reference, box) if known else None
    labels = known.labels if known else ()
    return Reduced(structure, box, outcome, truth, absence(structure.values, labels))


def _check_grid(path: Path, own: Geometry, first: Geometry, of: str) -> None:
    if isinstance(first, Unplaced) and not isinstance(own, Unplaced):
        raise InputError(
            f"{path}: the grid of {of} is unknown; put a NIfTI file of the same name "
            "beside each"
        )
    if not same_grid(first, own):
        raise InputError(f"{path}: not on the grid of {of}; resample one to the other")


def _check_value(values: Mapping[float, Path]) -> None:
    """Raises InputError if the masks of a case have different foreground values."""
    if len(values) > 1:
        (one, first), (other, path) = list(values.items())[:2]
        raise InputError(
            f"{path}: label {other:g}, but label {one:g} in {first.name}; choose the "
            "structure by --label, or save all its masks with the same value"
        )


def _check_content(contents: Mapping[str, Path]) -> None:
    """Raises InputError if a map without the labels is among probabilities.

    Its 1 may be that of a mask of the structure, or another label: nothing tells.
    """
    if OTHER_LABELS in contents and PROBABILITIES in contents:
        raise InputError(
            f"{contents[OTHER_LABELS]}: has other labels alone, and "
            f"{contents[PROBABILITIES].name} is probabilities; a probability map and a "
            "label map cannot be mixed under --label: save all samples as one of them"
        )
