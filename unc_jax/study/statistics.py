"""Rank correlations, and one paired bootstrap over cases for every interval.

A missing value is NaN. Correlations use the cases with both values, means those with
the value. An undefined result is None, never a number.

A resample draws cases with replacement, and also the runs (seeds) of each model; all
models and measures use the same resamples. Differences of two correlations are thus
paired, and variation that both share cancels. With one run per model only cases are
drawn: the interval then holds for these trained networks, not for new trainings. With a
few runs it includes the spread between trainings, slightly underestimated (by a factor
of (s - 1)/s in variance for s runs).
"""

import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy  # scipy.stats takes 0.8 s to load, so at its first use only
from numpy.typing import ArrayLike

COVERAGE_PERCENT = 95.0
# Defaults for all intervals. The smallest p is about 2 / RESAMPLES.
RESAMPLES, SEED = 5000, 0
# Cases of a bootstrap of rho. With fewer its interval excludes 0 by chance far more
# often than it says: with 3 independent ones in 14 % of all data sets, on one side.
FEWEST = 6


class Correlation(NamedTuple):
    """Spearman's rho, its two-sided p value, and the number of complete cases."""

    rho: float | None
    p: float | None
    n: int


class Estimate(NamedTuple):
    """A value and its bootstrap draws, float64 (resamples,); NaN where undefined."""

    value: float | None
    draws: np.ndarray


def spearman(x: ArrayLike, y: ArrayLike) -> Correlation:
    """Returns the rank correlation of (cases,) and (cases,), as scipy's `spearmanr`.

    Ties get average ranks; p comes from the t distribution with n - 2 degrees of
    freedom. With fewer than 3 complete cases, or one of the two constant, rho and p
    are None. Raises ValueError when the lengths differ.
    """
    x, y = complete(x, y)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(None, None, len(x))
    result: Any = scipy.stats.spearmanr(x, y)
    return Correlation(float(result.statistic), float(result.pvalue), len(x))


def partial_spearman(x: ArrayLike, y: ArrayLike, given: ArrayLike) -> Correlation:
    """Returns the rank correlation of x and y with the ranks of `given` held fixed.

    All are (cases,). rho = (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2)(1 - r_yz^2)) with
    Spearman's coefficients (Kendall & Stuart); p from the t distribution with n - 3
    degrees of freedom. None with fewer than 4 complete cases, a constant variable, or
    x or y in the same or opposite order as `given`, where no variation is left.
    """
    columns = np.stack([np.asarray(one, float) for one in (x, y, given)])
    columns = columns[:, ~np.isnan(columns).any(axis=0)]
    n = columns.shape[1]
    if n < 4 or np.any(np.ptp(columns, axis=1) == 0):
        return Correlation(None, None, n)
    (_, xy, xz), (_, _, yz), _ = np.corrcoef(scipy.stats.rankdata(columns, axis=1))
    left = (1 - xz**2) * (1 - yz**2)
    if left < 1e-12:
        return Correlation(None, None, n)
    rho = float(np.clip((xy - xz * yz) / np.sqrt(left), -1.0, 1.0))
    if abs(rho) == 1.0:
        return Correlation(rho, 0.0, n)
    t = rho * np.sqrt((n - 3) / (1 - rho**2))
    return Correlation(rho, float(2 * scipy.stats.t.sf(abs(t), n - 3)), n)


def spearman_within(
    x: ArrayLike, y: ArrayLike, *, low: float = -np.inf, high: float = np.inf
) -> Correlation:
    """Returns `spearman` over the cases with low <= y < high.

    With y the Dice, it shows whether a measure also ranks the good cases, or only
    separates a few failures.
    """
    y = np.asarray(y, float)
    return spearman(x, np.where((y >= low) & (y < high), y, np.nan))


def resampled_cases(ids: Sequence[str], *, resamples: int, seed: int) -> np.ndarray:
    """Draws case indices int (resamples, cases), a function of only the seed and ids.

    Equal lists of cases give equal resamples, different lists independent ones.
    """
    key = zlib.crc32("\n".join(ids).encode())
    random = np.random.default_rng([seed, key])
    return random.integers(0, len(ids), size=(resamples, len(ids)))


def resampled_runs(name: str, runs: int, *, resamples: int, seed: int) -> np.ndarray:
    """Draws indices of the runs of the model `name`, int (resamples, runs)."""
    random = np.random.default_rng([seed, 1, zlib.crc32(name.encode())])
    return random.integers(0, runs, size=(resamples, runs))


def estimate_spearman(x: ArrayLike, y: ArrayLike, cases: np.ndarray) -> Estimate:
    """Returns Spearman's rho of x and y, both (cases,), and of each row of `cases`.

    cases: from `resampled_cases`. Cases with a NaN in x or y are left out. A draw is
    NaN if fewer than 3 drawn cases have both values, or x or y is constant. With
    fewer than FEWEST complete cases all draws are NaN, so there is no interval.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    present = ~(np.isnan(x) | np.isnan(y))
    drawn = present[cases]
    # An infinity ranks above all values present, so it does not move their ranks.
    a, b = (
        scipy.stats.rankdata(np.where(present, one, np.inf)[cases], axis=1)
        for one in (x, y)
    )
    a, b = _centred(a, drawn), _centred(b, drawn)
    scale = np.sqrt(np.sum(a * a, axis=1) * np.sum(b * b, axis=1))
    defined = (scale > 0) & (drawn.sum(axis=1) >= 3) & (present.sum() >= FEWEST)
    rho = np.sum(a * b, axis=1) / np.where(defined, scale, 1.0)
    draws = np.where(defined, np.clip(rho, -1.0, 1.0), np.nan)
    return Estimate(spearman(x, y).rho, draws)


def estimate_mean(values: ArrayLike, cases: np.ndarray) -> Estimate:
    """Returns the mean of the values that are not NaN, and of each row of `cases`.

    A draw is NaN if it has no value; all draws are NaN with fewer than 2 cases, which
    have no spread.
    """
    values = np.asarray(values, float)
    drawn = values[cases]
    present = ~np.isnan(drawn)
    count = present.sum(axis=1)
    total = np.where(present, drawn, 0.0).sum(axis=1)
    enough = (count > 0) & (np.isfinite(values).sum() > 1)
    draws = np.where(enough, total / np.maximum(count, 1), np.nan)
    return Estimate(mean(values), draws)


def mean_over_runs(runs: Sequence[Estimate], chosen: np.ndarray) -> Estimate:
    """Returns the mean over the runs of one model, resampling the runs too.

    chosen: int (resamples, runs), from `resampled_runs`. If a run has no value, the
    mean is undefined instead of leaving the run out.
    """
    value = spread(one.value for one in runs)["mean"]
    if value is None:
        return Estimate(None, np.full(len(chosen), np.nan))
    draws = np.stack([one.draws for one in runs], axis=1)
    return Estimate(value, np.take_along_axis(draws, chosen, axis=1).mean(axis=1))


def mean_difference(pairs: Sequence[tuple[Estimate, Estimate]]) -> Estimate:
    """Returns the mean over pairs of (first - second), draw by draw.

    Undefined without pairs, or if a value of a pair is undefined.
    """
    values = [
        None if one.value is None or two.value is None else one.value - two.value
        for one, two in pairs
    ]
    value = spread(values)["mean"]
    if value is None:
        return Estimate(None, np.empty(0))
    draws = [one.draws - two.draws for one, two in pairs]
    return Estimate(value, np.mean(draws, axis=0))


def finding(estimate: Estimate) -> dict[str, Any]:
    """Returns {value, ci95, p_bootstrap}: 95 % percentile interval, two-sided p of 0.

    p = 2 (1 + min(#draws <= 0, #draws >= 0)) / (1 + #draws), at most 1: the level at
    which the interval would just touch 0. Undefined draws are left out; without draws
    or without a value all three are None.
    """
    draws = estimate.draws[~np.isnan(estimate.draws)]
    if estimate.value is None or len(draws) == 0:
        return {"value": None, "ci95": None, "p_bootstrap": None}
    tail = (100.0 - COVERAGE_PERCENT) / 2
    ends = np.percentile(draws, [tail, 100.0 - tail])
    beyond = min(np.count_nonzero(draws <= 0), np.count_nonzero(draws >= 0))
    p = min(1.0, 2 * (1 + beyond) / (1 + len(draws)))
    return {"value": estimate.value, "ci95": ends.tolist(), "p_bootstrap": float(p)}


def correlate(x: ArrayLike, y: ArrayLike, cases: np.ndarray) -> dict[str, Any]:
    """Returns {rho, p, ci95, n} of `spearman`, with the interval of `finding`."""
    rho, p, n = spearman(x, y)
    ci95 = finding(estimate_spearman(x, y, cases))["ci95"]
    return {"rho": rho, "p": p, "ci95": ci95, "n": n}


def mean(values: ArrayLike | Sequence[float | None]) -> float | None:
    """Returns the mean of the values (cases,) that are not NaN; None without any."""
    values = np.asarray(values, float)
    present = values[~np.isnan(values)]
    return float(present.mean()) if len(present) else None


def spread(values: Iterable[float | None], **beside: Any) -> dict[str, Any]:
    """Returns {mean, sd, by_seed} over the runs of a model, and the fields `beside`.

    sd: with n - 1; None for one run. mean and sd are None if a run has no value.
    """
    by_seed = list(values)
    known = np.array(by_seed, float)
    whole = not np.isnan(known).any()
    return {
        "mean": mean(known) if whole else None,
        "sd": float(known.std(ddof=1)) if whole and len(known) > 1 else None,
        "by_seed": by_seed,
        **beside,
    }


def complete(x: ArrayLike, y: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs without NaN; raises ValueError when the lengths differ."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 1 or x.shape != y.shape:
        raise ValueError(f"need two equal lengths, got {x.shape} and {y.shape}")
    present = ~(np.isnan(x) | np.isnan(y))
    return x[present], y[present]


def _centred(ranks: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    count = np.maximum(drawn.sum(axis=1, keepdims=True), 1)
    mean = np.sum(ranks * drawn, axis=1, keepdims=True) / count
    return (ranks - mean) * drawn
