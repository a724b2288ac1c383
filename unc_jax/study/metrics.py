"""Quality of masks, agreement of samples with several raters, calibration.

Several raters of one case are a stack of masks (raters, x, y, z), bool or 0/1 integers.

Calibration compares the foreground probability with its frequency. Voxels are summed
per case and the sums added, so that only one case is in memory.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from unc_jax.uncertainty.packed_masks import shared_voxels

BINS = 15
# float32 probabilities are exactly 0 or 1 long before the network is certain.
_FLOOR = 1e-7
# Voxels per block: their float64 values stay in the cache, and the arrays are small
# enough (64 KiB) that the allocator reuses pages. 256^3 voxels: 0.15 s instead of 1.0.
_BLOCK = 1 << 13
_FACTORS = 16  # likelihoods >= _FLOOR whose product is never a denormal float64


def dice(prediction: ArrayLike, reference: ArrayLike) -> float:
    """Returns the Dice similarity coefficient, 2 |P and R| / (|P| + |R|), 0 ... 1.

    Both are masks of the same shape: bool, integers with 0 as background, or floats 0
    and 1. The Dice of two empty masks is NaN, of one empty mask 0. Raises ValueError
    when the shapes differ, or for other floats: threshold probabilities first.
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
    share = np.arange(len(masks) + 1) / len(masks)
    return (share * (1.0 - share))[votes(masks)]


def votes(raters: ArrayLike) -> np.ndarray:
    """Counts the raters (raters, x, y, z) that marked a voxel, -> uint16 (x, y, z)."""
    return _stack(raters).sum(axis=0, dtype=np.uint16)


def cross_correlation(
    uncertainty: ArrayLike, disagreed: ArrayLike, *, within: ArrayLike | None = None
) -> float | None:
    """Returns the normalised cross-correlation of two maps (x, y, z), -1 ... 1.

    Mean of (a - mean a)(b - mean b) / (sd a sd b) over all voxels, or those of the mask
    `within`, as in ValUES (Kahl et al., ICLR 2024). None when either map is constant
    there, e.g. where the raters agree everywhere.
    """
    a, b = np.asarray(uncertainty), np.asarray(disagreed)
    if a.shape != b.shape:
        raise ValueError(f"maps of different shapes: {a.shape} and {b.shape}")
    a, b = _chosen(a, within), _chosen(b, within)
    if a.size == 0 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    mean_a, mean_b = np.mean(a, dtype=float), np.mean(b, dtype=float)
    of_a = of_b = of_both = 0.0
    for block in _blocks(a.size):
        apart_a, apart_b = a[block] - mean_a, b[block] - mean_b
        of_a += apart_a @ apart_a
        of_b += apart_b @ apart_b
        of_both += apart_a @ apart_b
    correlation = of_both / math.sqrt(of_a * of_b)
    return min(1.0, max(-1.0, float(correlation)))


def generalised_energy_distance(samples: np.ndarray, raters: np.ndarray) -> float:
    """Returns the squared energy distance of two sets of masks.

    samples, raters: bit-packed along z, uint8 (n, x, y, ceil(z / 8)) each.
    D^2 = 2 E[d(S, Y)] - E[d(S, S')] - E[d(Y, Y')] with d = 1 - IoU, and d = 0 of two
    empty masks (Kohl et al., A probabilistic U-Net, 2018). Expectations are over all
    ordered pairs, a mask with itself included, so D^2 >= 0, and 0 for equal sets.
    Raises ValueError when a set is empty or the shapes differ.
    """
    if not len(samples) or not len(raters) or samples.shape[1:] != raters.shape[1:]:
        raise ValueError(
            f"need masks of one shape, got {samples.shape} and {raters.shape}"
        )
    shared = shared_voxels(np.concatenate([samples, raters]))
    sizes = np.diagonal(shared)
    union = sizes[:, None] + sizes - shared
    distance = np.where(union > 0, 1.0 - shared / np.maximum(union, 1), 0.0)
    s, y = slice(len(samples)), slice(len(samples), None)
    across, of_samples, of_raters = (
        float(distance[pair].mean()) for pair in ((s, y), (s, s), (y, y))
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
    p, y = np.asarray(probabilities), np.asarray(labels)
    if p.shape != y.shape:
        raise ValueError(f"probabilities {p.shape} and labels {y.shape} differ")
    p, y = _chosen(p, within), _chosen(y, within)
    if p.size and not (p.min() >= 0 and p.max() <= 1):  # neither holds for NaN
        raise ValueError("a probability is not within 0 ... 1")
    per_bin, squared_error, log_loss = np.zeros((3, bins)), 0.0, 0.0
    for block in _blocks(p.size):
        inside, true = p[block].astype(np.float64), y[block] != 0
        per_bin += _sum_by_bin(inside, true, bins)
        likelihood = np.subtract(1.0, inside)
        np.copyto(likelihood, inside, where=true)
        missed = np.subtract(1.0, likelihood)
        squared_error += float(missed @ missed)
        np.maximum(likelihood, _FLOOR, out=likelihood)
        # A logarithm takes far longer than a product.
        whole = likelihood.size // _FACTORS * _FACTORS
        product = likelihood[:whole].reshape(_FACTORS, -1).prod(axis=0)
        log_loss -= float(np.log(product).sum() + np.log(likelihood[whole:]).sum())
    names = ("count", "probability", "foreground")
    return {
        **dict(zip(names, per_bin.tolist(), strict=True)),
        "squared_error": squared_error,
        "log_loss": log_loss,
    }


def add_sums(sums: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Adds the results of `sum_voxels` of several cases, at least one."""
    return {
        name: np.sum([one[name] for one in sums], axis=0).tolist() for name in sums[0]
    }


def calibration(sums: dict[str, Any]) -> dict[str, Any]:
    """Returns {ece, brier, nll (nats), n} over n voxels; None without a voxel.

    ECE = sum_b (n_b / n) |mean probability_b - frequency_b| (Naeini et al., 2015),
    Brier = mean (p - y)^2, NLL = mean -log of the probability of the label.

    Probabilities of the label below 1e-7 count as 1e-7, so the NLL is at most 16.1.
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


def _sum_by_bin(p: np.ndarray, y: np.ndarray, bins: int) -> np.ndarray:
    """Returns count, probability and foreground of each bin, (3, bins)."""
    # Nearly all voxels are background, in the first bin: it gets what the others lack.
    above = p * bins >= 1
    high, true = p[above], y[above]
    place = np.minimum((high * bins).astype(np.intp), bins - 1)
    weights = (None, high, true)
    sums = np.zeros((3, bins))  # of nothing, `bincount` makes integers
    sums[:] = [np.bincount(place, w, minlength=bins) for w in weights]
    whole = p.size, p.sum(), np.count_nonzero(y)
    sums[:, 0] = whole - sums.sum(axis=1)
    return sums


def _chosen(values: np.ndarray, within: ArrayLike | None) -> np.ndarray:
    return values.reshape(-1) if within is None else values[np.asarray(within, bool)]


def _blocks(size: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK) for start in range(0, size, _BLOCK))


def _stack(values: ArrayLike) -> np.ndarray:
    masks = np.asarray(values)
    if masks.ndim < 2:
        raise ValueError(f"need a stack of masks, got shape {masks.shape}")
    return masks.astype(bool, copy=False)
