"""Selective prediction: quality of the cases kept when uncertain ones are set aside.

Functions take the risk of each case (here 1 - Dice, so 0 is perfect), or its Dice,
and a confidence (higher is surer; of a measure of uncertainty its negative). Cases of
equal confidence cannot be told apart, so each result is the mean over all orders of a
tie, exactly: it depends on no order of the cases, and reaches coverage 1.

A missing value is NaN; a case with one missing takes no part. What is undefined is
None.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from unc_jax.study.statistics import complete


class RiskCoverage(NamedTuple):
    """Entry k - 1 is for the k surest of n cases kept; arrays are float64 (n,)."""

    coverage: np.ndarray  # k / n
    selective_risk: np.ndarray  # mean risk of those kept
    generalised_risk: np.ndarray  # their summed risk / n


class Areas(NamedTuple):
    """Areas under the curves, in units of risk; all None without a case."""

    aurc: float | None
    e_aurc: float | None
    augrc: float | None
    n: int


class Referral(NamedTuple):
    """Mean Dice of what is kept when a fraction goes to a human; float64 (n,)."""

    referred: np.ndarray  # 0, 1/n, ... (n - 1)/n
    kept_dice: np.ndarray  # the least certain cases referred
    random_dice: np.ndarray  # any cases referred, on average: the mean of all
    oracle_dice: np.ndarray  # the worst cases referred


def risk_coverage(risk: ArrayLike, confidence: ArrayLike) -> RiskCoverage:
    """Returns the risk of the k surest cases for k = 1 ... n; arguments are (cases,).

    Within a tie of m cases with mean risk r, the j-th adds r: the expectation over the
    m! orders. Raises ValueError when the lengths differ.
    """
    risk, confidence = complete(risk, confidence)
    # Equal confidences share a block; blocks from the surest down.
    _, block = np.unique(-confidence, return_inverse=True)
    sizes = np.bincount(block)
    means = np.bincount(block, weights=risk) / np.maximum(sizes, 1)
    kept = np.arange(1, len(risk) + 1)
    summed = np.cumsum(means[np.sort(block)])
    n = max(len(risk), 1)
    return RiskCoverage(kept / n, summed / kept, summed / n)


def areas(risk: ArrayLike, confidence: ArrayLike) -> Areas:
    """Returns AURC, E-AURC and AUGRC of (cases,) risks under (cases,) confidences.

    AURC = (1/n) sum_k (mean risk of the k surest), and E-AURC = AURC less that of the
    cases ordered by their risk itself (Geifman et al., Bias-reduced uncertainty
    estimation, ICLR 2019). If all confidences are equal, AURC is the mean risk.

    AUGRC is the area under generalised risk, linear between thresholds and 0 at
    coverage 0 (Traub et al., Overcoming common flaws in the evaluation of selective
    classification systems, NeurIPS 2024). For risks 0 or 1 it is
    (1 - AUROC) a (1 - a) + (1 - a)^2 / 2 with a the share of zeros.
    """
    risk, confidence = complete(risk, confidence)
    if len(risk) == 0:
        return Areas(None, None, None, 0)
    curve = risk_coverage(risk, confidence)
    oracle = risk_coverage(risk, -risk)
    aurc = float(curve.selective_risk.mean())
    # The trapezoid rule on the steps 1/n; within a tie the curve is linear anyway.
    heights = curve.generalised_risk
    augrc = (float(heights.sum()) - float(heights[-1]) / 2) / len(risk)
    return Areas(aurc, aurc - float(oracle.selective_risk.mean()), augrc, len(risk))


def failure_auroc(
    dice: ArrayLike, confidence: ArrayLike, *, threshold: float
) -> tuple[float | None, int]:
    """Returns the AUROC of low confidence for Dice < threshold, and the failures.

    The probability that a failure has a lower confidence than another case, ties
    counted half (Mann-Whitney U over the number of pairs). None when no case fails, or
    all do.
    """
    dice, confidence = complete(dice, confidence)
    failed = dice < threshold
    failures, others = int(failed.sum()), int((~failed).sum())
    if failures == 0 or others == 0:
        return None, failures
    # Rank sum of the failures among uncertainties, ties at their average rank.
    ranks = stats.rankdata(-confidence)
    pairs = ranks[failed].sum() - failures * (failures + 1) / 2
    return float(pairs / (failures * others)), failures


def referral(dice: ArrayLike, confidence: ArrayLike) -> Referral:
    """Returns the mean Dice kept as the least certain cases are referred one by one.

    It is risk_coverage read from the other end: kept Dice = 1 - selective risk.
    """
    dice, confidence = complete(dice, confidence)
    kept = _kept_dice(dice, confidence)
    n = len(dice)
    overall = np.full(n, dice.mean() if n else np.nan)
    return Referral(np.arange(n) / max(n, 1), kept, overall, _kept_dice(dice, dice))


def referral_gain(dice: ArrayLike, confidence: ArrayLike) -> float | None:
    """Returns the area between referral curve and random as a share of the oracle's.

    1: as good as knowing Dice; 0: as good as chance; negative: worse. None when all
    Dice are equal (no order is better than another) or there is no case.
    """
    curve = referral(dice, confidence)
    possible = float(np.sum(curve.oracle_dice - curve.random_dice))
    if len(curve.kept_dice) == 0 or np.ptp(curve.oracle_dice) == 0:
        return None
    return float(np.sum(curve.kept_dice - curve.random_dice)) / possible


def _kept_dice(dice: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    return 1.0 - risk_coverage(1.0 - dice, confidence).selective_risk[::-1]
