"""Segmentation quality of one mask against a reference mask."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Agreement(NamedTuple):
    """Where a prediction agrees with its reference; boolean arrays of their shape."""

    true_positive: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray


def dice(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Dice similarity coefficient, 2 |P and R| / (|P| + |R|), within 0 ... 1.

    Both are masks of one shape: bool, integers of which 0 is background, or floats that
    are 0 or 1. Two empty masks have no defined Dice: NaN. One empty mask scores 0.
    Raises ValueError when the shapes differ, or for any other float: a probability has
    to be thresholded first.
    """
    predicted, true = _two_masks(prediction, reference)
    sizes = np.count_nonzero(predicted) + np.count_nonzero(true)
    if sizes == 0:
        return float("nan")
    return float(2 * np.count_nonzero(predicted & true) / sizes)


def agreement(prediction: ArrayLike, reference: ArrayLike) -> Agreement:
    """True positive, false positive and false negative voxels of two masks.

    Same input and errors as `dice`.
    """
    predicted, true = _two_masks(prediction, reference)
    return Agreement(predicted & true, predicted & ~true, ~predicted & true)


def volume_ml(mask: ArrayLike, voxel_ml: float) -> float:
    """Volume of a mask in millilitres, given that of one voxel; an empty mask has 0."""
    return float(np.count_nonzero(_mask(mask)) * voxel_ml)


def _two_masks(first: ArrayLike, second: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    one, two = _mask(first), _mask(second)
    if one.shape != two.shape:
        raise ValueError(f"masks of different shapes: {one.shape} and {two.shape}")
    return one, two


def _mask(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iu" and np.any((array != 0) & (array != 1)):
        raise ValueError("a mask is 0 or 1; threshold probabilities first")
    return array != 0
