"""Segmentation quality of a mask against a reference, and of samples against raters.

Several raters of one case are a stack of masks (raters, x, y, z), bool or 0/1 integers.
"""

import math
from itertools import combinations, product
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike


class Agreement(NamedTuple):
    """Agreement of a prediction with its reference; boolean arrays of their shape."""

    true_positive: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray


def dice(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Returns the Dice similarity coefficient, 2 |P and R| / (|P| + |R|), 0 ... 1.

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
    """Returns true positive, false positive and false negative voxels of two masks.

    Same input and errors as `dice`.
    """
    predicted, true = _two_masks(prediction, reference)
    return Agreement(predicted & true, predicted & ~true, ~predicted & true)


def volume_ml(mask: ArrayLike, voxel_ml: float) -> float:
    """Returns the volume of a mask in ml, given that of one voxel."""
    return float(np.count_nonzero(_mask(mask)) * voxel_ml)


def disagreement(raters: ArrayLike) -> np.ndarray:
    """Returns the variance q (1 - q) of the label at each voxel, q its share of raters.

    raters: (raters, x, y, z). Returns float64 (x, y, z), 0 where all agree, at most
    1/4. Raises ValueError for fewer than two raters.
    """
    masks = _stack(raters)
    if len(masks) < 2:
        raise ValueError(f"{len(masks)} rater; a disagreement needs two")
    share = masks.mean(axis=0)
    return share * (1.0 - share)


def cross_correlation(
    uncertainty: ArrayLike, disagreed: ArrayLike, *, within: ArrayLike | None = None
) -> float | None:
    """Returns the normalised cross-correlation of two maps (x, y, z), -1 ... 1.

    mean of (a - mean a)(b - mean b) / (sd a sd b) over the voxels, or those of the mask
    `within`, as in ValUES (Kahl et al., ICLR 2024). None when either map is constant
    there (raters who agree everywhere say nothing of where).
    """
    a, b = np.asarray(uncertainty, float), np.asarray(disagreed, float)
    if a.shape != b.shape:
        raise ValueError(f"maps of different shapes: {a.shape} and {b.shape}")
    chosen = np.ones(a.shape, bool) if within is None else np.asarray(within, bool)
    a, b = a[chosen], b[chosen]
    if a.size == 0 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    a, b = a - a.mean(), b - b.mean()
    correlation = float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
    return min(1.0, max(-1.0, correlation))


def generalised_energy_distance(samples: ArrayLike, raters: ArrayLike) -> float:
    """Returns the squared energy distance of two sets of masks, (n, x, y, z) each.

    D^2 = 2 E[d(S, Y)] - E[d(S, S')] - E[d(Y, Y')] with d = 1 - IoU, and d = 0 of two
    empty masks (Kohl et al., A probabilistic U-Net, 2018). Expectations are over all
    ordered pairs, a mask with itself included, so D^2 >= 0, and 0 for equal sets.
    Raises ValueError when a set is empty or the shapes differ.
    """
    s, y = _stack(samples), _stack(raters)
    if len(s) == 0 or len(y) == 0 or s.shape[1:] != y.shape[1:]:
        raise ValueError(f"need masks of one shape, got {s.shape} and {y.shape}")
    between = [_distance(a, b) for a, b in product(s, y)]
    return 2 * float(np.mean(between)) - _within(s) - _within(y)


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


def _within(masks: np.ndarray) -> float:
    # Of the n^2 ordered pairs, those of a mask with itself have distance 0.
    apart = sum(_distance(a, b) for a, b in combinations(masks, 2))
    return 2 * apart / len(masks) ** 2


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return 1.0 - np.count_nonzero(a & b) / union if union else 0.0


def _stack(values: ArrayLike) -> np.ndarray:
    masks = np.asarray(values)
    if masks.ndim < 2:
        raise ValueError(f"need a stack of masks, got shape {masks.shape}")
    return masks.astype(bool)
