"""Quality of masks, of samples against several raters, and of probabilities.

Several raters of one case are a stack of masks (raters, x, y, z), bool or 0/1 integers.

Calibration is that of the foreground probability against its frequency. Voxels are
summed case by case and the sums added, so that no more than one case is ever in memory.
"""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

BINS = 15
# float32 probabilities are exactly 0 or 1 long before the network is certain.
_FLOOR = 1e-7


def dice(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Returns the Dice similarity coefficient, 2 |P and R| / (|P| + |R|), 0 ... 1.

    Both are masks of one shape: bool, integers of which 0 is background, or floats that
    are 0 or 1. Two empty masks have no defined Dice: NaN. One empty mask scores 0.
    Raises ValueError when the shapes differ, or for any other float: a probability has
    to be thresholded first.
    """
    predicted, true = _mask(prediction), _mask(reference)
    if predicted.shape != true.shape:
        raise ValueError(
            f"masks of different shapes: {predicted.shape} and {true.shape}"
        )
    sizes = np.count_nonzero(predicted) + np.count_nonzero(true)
    if sizes == 0:
        return float("nan")
    return float(2 * np.count_nonzero(predicted & true) / sizes)


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
    across, of_samples, of_raters = (
        float(np.mean([_distance(a, b) for a, b in product(*pair)]))
        for pair in ((s, y), (s, s), (y, y))
    )
    return 2 * across - of_samples - of_raters


def sum_voxels(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    within: ArrayLike | None = None,
    bins: int = BINS,
) -> dict[str, Any]:
    """Returns sums over the voxels of one case, as plain JSON, for `calibration`.

    From foreground probabilities and 0/1 labels; within: mask of the voxels to count,
    default all. Per bin of probability: count, (summed) probability, foreground;
    overall: squared_error, log_loss (nats). Bins are of equal width on 0 ... 1, the
    last one closed. Raises ValueError when shapes differ or a probability is not within
    0 ... 1.
    """
    p, y = np.asarray(probabilities), np.asarray(labels) != 0
    if p.shape != y.shape:
        raise ValueError(f"probabilities {p.shape} and labels {y.shape} differ")
    chosen = np.ones(p.shape, bool) if within is None else np.asarray(within, bool)
    p, y = p[chosen].astype(np.float64), y[chosen]
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a probability is not within 0 ... 1")
    place = np.minimum((p * bins).astype(int), bins - 1)
    likelihood = np.clip(np.where(y, p, 1 - p), _FLOOR, 1.0)
    per_bin = {
        name: np.bincount(place, weights, minlength=bins).astype(float).tolist()
        for name, weights in (("count", None), ("probability", p), ("foreground", y))
    }
    return {
        **per_bin,
        "squared_error": float(np.sum((p - y) ** 2)),
        "log_loss": float(-np.log(likelihood).sum()),
    }


def add_sums(sums: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Adds what `sum_voxels` found in each case; at least one is needed."""
    return {
        name: np.sum([one[name] for one in sums], axis=0).tolist() for name in sums[0]
    }


def calibration(sums: dict[str, Any]) -> dict[str, Any]:
    """Returns {ece, brier, nll (nats), n} over n voxels; None without a voxel.

    ECE = sum_b (n_b / n) |mean probability_b - frequency_b| (Naeini et al., 2015),
    Brier = mean (p - y)^2, NLL = mean -log of the probability of the label.

    A probability below 1e-7 of what is there counts as 1e-7, so NLL is at most 16.1.
    """
    n = int(np.sum(sums["count"]))
    if n == 0:
        return {"ece": None, "brier": None, "nll": None, "n": 0}
    # n_b |a/n_b - b/n_b| = |a - b|, so empty bins need no special case.
    apart = np.abs(np.subtract(sums["probability"], sums["foreground"]))
    return {
        "ece": float(apart.sum()) / n,
        "brier": sums["squared_error"] / n,
        "nll": sums["log_loss"] / n,
        "n": n,
    }


def reliability(sums: dict[str, Any]) -> dict[str, list[float | None]]:
    """Returns the reliability diagram: frequency against mean probability, by bin.

    {probability, frequency, count (of voxels)}; None in an empty bin.
    """
    count = sums["count"]
    means = {
        name: [t / n if n else None for t, n in zip(sums[total], count, strict=True)]
        for name, total in (("probability", "probability"), ("frequency", "foreground"))
    }
    return {**means, "count": count}


def _mask(values: ArrayLike) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iu" and np.any((array != 0) & (array != 1)):
        raise ValueError("a mask is 0 or 1; threshold probabilities first")
    return array != 0


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return 1.0 - np.count_nonzero(a & b) / union if union else 0.0


def _stack(values: ArrayLike) -> np.ndarray:
    masks = np.asarray(values)
    if masks.ndim < 2:
        raise ValueError(f"need a stack of masks, got shape {masks.shape}")
    return masks.astype(bool)
