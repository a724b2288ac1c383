"""Rank correlation and bootstrap intervals over cases.

A missing value is NaN. Correlations use the cases where both values are present, means
those where the one is. An undefined result is None, never a number that looks like one.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

COVERAGE_PERCENT = 95.0


class Correlation(NamedTuple):
    """Spearman's rho, its two-sided p value, and the number of complete cases."""

    rho: float | None
    p: float | None
    n: int


class Interval(NamedTuple):
    """A 95 % percentile interval and the resamples dropped because undefined.

    `low` and `high` are both None when there is no interval.
    """

    low: float | None
    high: float | None
    dropped: int


def spearman(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Spearman rank correlation of (cases,) and (cases,), as `scipy.stats.spearmanr`.

    Ties get average ranks; p comes from the t distribution with n - 2 degrees of
    freedom. With fewer than 3 complete cases, or one of the two constant, rho and p
    are None. Raises ValueError when the lengths differ.
    """
    x, y = _complete(x, y)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(None, None, len(x))
    result: Any = stats.spearmanr(x, y)
    return Correlation(float(result.statistic), float(result.pvalue), len(x))


def partial_spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> Correlation:
    """Rank correlation of x and y with the ranks of `given` held fixed, all (cases,).

    (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2)) of Spearman's coefficients
    (Kendall & Stuart), p from the t distribution with n - 3 degrees of freedom. None
    with fewer than 4 complete cases, any variable constant, or x or y of the same or
    opposite order as `given`: nothing of it is left to correlate.
    """
    columns = np.stack([np.asarray(one, float) for one in (x, y, given)])
    columns = columns[:, ~np.isnan(columns).any(axis=0)]
    n = columns.shape[1]
    if n < 4 or np.any(np.ptp(columns, axis=1) == 0):
        return Correlation(None, None, n)
    (_, xy, xz), (_, _, yz), _ = np.corrcoef(_ranks(columns))
    left = (1 - xz**2) * (1 - yz**2)
    if left < 1e-12:
        return Correlation(None, None, n)
    rho = float(np.clip((xy - xz * yz) / np.sqrt(left), -1.0, 1.0))
    if abs(rho) == 1.0:
        return Correlation(rho, 0.0, n)
    t = rho * np.sqrt((n - 3) / (1 - rho**2))
    return Correlation(rho, float(2 * stats.t.sf(abs(t), n - 3)), n)


def spearman_above(x: ArrayLike, y: ArrayLike, *, floor: float) -> Correlation:
    """`spearman` over the cases whose y is at least `floor`.

    With y the Dice it says whether a measure ranks the good cases too, or only sets a
    few failures apart.
    """
    y = np.asarray(y, float)
    return spearman(x, np.where(y >= floor, y, np.nan))


def bootstrap_spearman(
    x: ArrayLike, y: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of Spearman's rho, cases resampled with replacement.

    Resamples in which either variable is constant have no rho; they are dropped and
    counted. No interval with fewer than 3 complete cases or if all were dropped.
    """
    x, y = _complete(x, y)
    if len(x) < 3:
        return Interval(None, None, 0)
    cases = _resampled_cases(len(x), resamples, seed)
    return _percentiles(_row_correlations(_ranks(x[cases]), _ranks(y[cases])))


def bootstrap_mean(
    values: ArrayLike, *, resamples: int = 2000, seed: int = 0
) -> Interval:
    """Percentile interval of the mean over the cases whose value is present.

    No interval with fewer than 2 such cases: one case says nothing about spread.
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if len(values) < 2:
        return Interval(None, None, 0)
    cases = _resampled_cases(len(values), resamples, seed)
    return _percentiles(values[cases].mean(axis=1))


def _complete(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"need two equal lengths, got {x.shape} and {y.shape}")
    present = ~(np.isnan(x) | np.isnan(y))
    return x[present], y[present]


def _resampled_cases(n: int, resamples: int, seed: int) -> np.ndarray:
    # Every measure of a run sees the same resamples: their intervals are comparable.
    return np.random.default_rng(seed).integers(0, n, size=(resamples, n))


def _ranks(values: np.ndarray) -> np.ndarray:
    # A resample repeats cases, so ties are the rule and average ranks matter.
    return stats.rankdata(values, axis=1)


def _row_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # Pearson's correlation of each row of a with the same row of b; NaN if constant.
    a = a - a.mean(axis=1, keepdims=True)
    b = b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt(np.sum(a * a, axis=1) * np.sum(b * b, axis=1))
    defined = scale > 0
    covariance = np.sum(a * b, axis=1)
    correlation = covariance / np.where(defined, scale, 1.0)
    return np.where(defined, np.clip(correlation, -1.0, 1.0), np.nan)


def _percentiles(estimates: np.ndarray) -> Interval:
    defined = estimates[~np.isnan(estimates)]
    dropped = len(estimates) - len(defined)
    if len(defined) == 0:
        return Interval(None, None, dropped)
    tail = (100.0 - COVERAGE_PERCENT) / 2
    low, high = np.percentile(defined, [tail, 100.0 - tail])
    return Interval(float(low), float(high), dropped)
