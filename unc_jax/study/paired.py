"""Paired bootstrap over cases: every model and measure sees the same resamples.

One resample draws cases with replacement, and of each model the seeds too. A
correlation is computed in every resample for every run, so a difference of two
correlations has a distribution of its own, in which what the two share cancels.

With one run per model only cases are drawn: the interval says how sure we are of these
trained networks, not of networks trained again. With a few seeds the spread between
trainings is in it, a little too small (by (s - 1)/s in variance for s seeds).
"""

import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from unc_jax.study.statistics import COVERAGE_PERCENT

NO_DRAWS = np.empty(0)


class Estimate(NamedTuple):
    """A value and its bootstrap draws, float64 (resamples,); NaN where undefined."""

    value: float | None
    draws: np.ndarray


class Finding(NamedTuple):
    """A value, its 95 % percentile interval and the two-sided p of its being 0."""

    value: float | None
    low: float | None
    high: float | None
    p: float | None


def resampled_cases(ids: Sequence[str], *, resamples: int, seed: int) -> np.ndarray:
    """Case indices int (resamples, cases), a function of seed and the ids alone.

    So lists of the same cases are resampled alike, and other lists independently.
    """
    key = zlib.crc32("\n".join(ids).encode())
    random = np.random.default_rng([seed, key])
    return random.integers(0, len(ids), size=(resamples, len(ids)))


def resampled_spearman(x: ArrayLike, y: ArrayLike, cases: np.ndarray) -> np.ndarray:
    """Spearman's rho (resamples,) of x and y, both (cases,), in each row of `cases`.

    Cases with a NaN in either take no part. NaN where fewer than 3 drawn cases have
    both values, or either is constant among them.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    present = ~(np.isnan(x) | np.isnan(y))
    drawn = present[cases]
    # An infinity ranks above all values present, so it does not move their ranks.
    a = _centred(stats.rankdata(np.where(present, x, np.inf)[cases], axis=1), drawn)
    b = _centred(stats.rankdata(np.where(present, y, np.inf)[cases], axis=1), drawn)
    scale = np.sqrt(np.sum(a * a, axis=1) * np.sum(b * b, axis=1))
    defined = (scale > 0) & (drawn.sum(axis=1) >= 3)
    rho = np.sum(a * b, axis=1) / np.where(defined, scale, 1.0)
    return np.where(defined, np.clip(rho, -1.0, 1.0), np.nan)


def resampled_mean(values: ArrayLike, cases: np.ndarray) -> np.ndarray:
    """Mean (resamples,) of the values present, in each row of `cases`; else NaN."""
    drawn = np.asarray(values, float)[cases]
    present = ~np.isnan(drawn)
    count = present.sum(axis=1)
    total = np.where(present, drawn, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def over_seeds(
    values: Sequence[float | None], draws: Sequence[np.ndarray], chosen: np.ndarray
) -> Estimate:
    """The mean over the runs of one model, with the runs drawn too.

    values, draws: of each run. chosen: int (resamples, runs), from `resampled_runs`.
    A run without a value leaves the mean undefined rather than another mean.
    """
    if any(value is None for value in values):
        return Estimate(None, np.full(len(chosen), np.nan))
    runs = np.stack(draws, axis=1)
    means = np.take_along_axis(runs, chosen, axis=1).mean(axis=1)
    return Estimate(float(np.mean([v for v in values if v is not None])), means)


def resampled_runs(name: str, runs: int, *, resamples: int, seed: int) -> np.ndarray:
    """Which runs of the model `name` each resample takes: int (resamples, runs)."""
    random = np.random.default_rng([seed, 1, zlib.crc32(name.encode())])
    return random.integers(0, runs, size=(resamples, runs))


def finding(estimate: Estimate) -> Finding:
    """Percentile interval, and the p at which that interval would just touch 0.

    p = 2 (1 + min(#draws <= 0, #draws >= 0)) / (1 + #draws), at most 1. Undefined draws
    are left out; with none left, or no value, everything is None.
    """
    draws = estimate.draws[~np.isnan(estimate.draws)]
    if estimate.value is None or len(draws) == 0:
        return Finding(None, None, None, None)
    tail = (100.0 - COVERAGE_PERCENT) / 2
    low, high = np.percentile(draws, [tail, 100.0 - tail])
    beyond = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    p = min(1.0, 2 * (1 + beyond) / (1 + len(draws)))
    return Finding(estimate.value, float(low), float(high), float(p))


def mean_difference(pairs: Sequence[tuple[Estimate, Estimate]]) -> Estimate:
    """Mean over pairs of (first - second), draw by draw."""
    values = [
        one.value - two.value
        for one, two in pairs
        if one.value is not None and two.value is not None
    ]
    draws = np.mean([one.draws - two.draws for one, two in pairs], axis=0)
    if len(values) < len(pairs):
        return Estimate(None, np.full_like(draws, np.nan))
    return Estimate(float(np.mean(values)), draws)


def _centred(ranks: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    count = np.maximum(drawn.sum(axis=1, keepdims=True), 1)
    mean = np.sum(ranks * drawn, axis=1, keepdims=True) / count
    return (ranks - mean) * drawn
