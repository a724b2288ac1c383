"""Channels of an array of probabilities: classes or regions, as nnU-Net writes them.

Channels that sum to 1 at every voxel are classes (softmax or one-hot): the number of a
channel is its label, 0 the background. Others are regions, a sigmoid each, in the order
that dataset.json lists them in.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unc_jax.errors import InputError
from unc_jax.review.structures import Structure
from unc_jax.uncertainty.prediction import SPARSE, Prediction

TOLERANCE = 1e-3  # of probabilities beyond 0 ... 1, which interpolation leaves
_FEW = 10_000  # voxels that are all looked at
SOFTMAX_TOLERANCE = 0.02  # of a sum over classes, each rounded to float16


def check_not_classes(outcome: Prediction, what: str) -> None:
    """Raises InputError, naming `what`, if the samples are classes of one softmax.

    Classes add up to the same number at every voxel; samples of a structure do not,
    because it has an outside.
    """
    step = SPARSE if outcome.mean.size > _FEW else 1
    mean = np.asarray(outcome.mean[::step, ::step, ::step])
    low, high = float(mean.min()), float(mean.max())
    if high - low <= SOFTMAX_TOLERANCE < low and high < 1 - SOFTMAX_TOLERANCE:
        raise InputError(
            f"{what}: the {len(outcome.volumes)} samples add up to the same number at "
            "every voxel, as the classes of a softmax do; give probabilities of one "
            "structure, or channels as an .npz with the array `probabilities`"
        )


def channels_of(
    array: np.ndarray, regions: Sequence[Structure], path: Path
) -> dict[tuple[int, ...], int]:
    """Returns the number of the channel that holds each set of labels.

    array: (channels, z, y, x). Of classes {(0,): 0, (1,): 1, ...}, of regions by the
    labels of each, of one map that is no class {(): 0}. Raises InputError, naming the
    file, for channels that are neither.
    """
    count = len(array)
    everything = np.sum(array, axis=0, dtype=np.float32)
    low, high = float(everything.min()), float(everything.max())
    if 1 - SOFTMAX_TOLERANCE <= low <= high <= 1 + SOFTMAX_TOLERANCE:
        return {(number,): number for number in range(count)}
    if len(regions) == count:
        return {one.values: number for number, one in enumerate(regions)}
    if count == 1:
        return {(): 0}
    raise InputError(
        f"{path}: its channels sum to {low:.3g} to {high:.3g}, not 1, so they are "
        f"regions, not classes; {len(regions) or 'no'} regions are named; give a "
        f"dataset.json that names all {count}, or one map (x, y, z) of the structure"
    )


def probabilities(array: np.ndarray, channels: Sequence[int], path: Path) -> np.ndarray:
    """Returns the sum of some channels of (channels, z, y, x), float32 (x, y, z)."""
    total = np.sum(array[list(channels)], axis=0, dtype=np.float32).T
    low, high = float(total.min()), float(total.max())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise InputError(
            f"{path}: values from {low:.3g} to {high:.3g} are not probabilities"
        )
    return np.clip(total, 0, 1)


def indices_of(
    place: dict[tuple[int, ...], int], structure: Structure, path: Path
) -> list[int]:
    """Returns the channels that together are a structure, of `channels_of`.

    Raises InputError, naming the file, where there is none.
    """
    values = structure.values
    if not values and list(place) in ([(0,), (1,)], [()]):
        return [len(place) - 1]
    singles = [place.get((value,)) for value in values]
    if values in place:
        return [place[values]]
    if not values or None in singles:
        none = f", none of them {structure.name}" if values else ""
        raise InputError(
            f"{path}: {len(place)} classes or regions{none}; choose by --label"
        )
    return [one for one in singles if one is not None]
