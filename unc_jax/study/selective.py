"""Selective prediction: quality of the cases kept when uncertain ones are set aside.

Functions take the risk of each case (here 1 - Dice, so 0 is perfect), or its Dice,
and a confidence (higher is surer; of a measure of uncertainty its negative). Cases of
equal confidence cannot be told apart, so each result is the mean over all orders of a
tie, exactly: it depends on no order of the cases, and reaches coverage 1.

A missing value is NaN; a case with one missing takes no part. What is undefined is
None.
"""

import numpy as np
import scipy
from numpy.typing import ArrayLike

from unc_jax.study.statistics import complete


def risk_coverage(
    risk: ArrayLike, confidence: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the risk of the k surest of n cases, k = 1 ... n; arguments are (cases,).

    First their mean risk (selective risk), then their summed risk / n (generalised
    risk), float64 (n,). Within a tie of m cases with mean risk r, each adds r: the
    expectation over the m! orders. Raises ValueError when the lengths differ.
    """
    risk, confidence = complete(risk, confidence)
    # Equal confidences share a block; blocks from the surest down.
    _, block = np.unique(-confidence, return_inverse=True)
    sizes = np.bincount(block)
    means = np.bincount(block, weights=risk) / np.maximum(sizes, 1)
    summed = np.cumsum(means[np.sort(block)])
    return summed / np.arange(1, len(risk) + 1), summed / max(len(risk), 1)


def areas(risk: ArrayLike, confidence: ArrayLike) -> dict[str, float | None]:
    """Returns {aurc, e_aurc, augrc} of (cases,) risks, in their unit; None without any.

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
        return {"aurc": None, "e_aurc": None, "augrc": None}
    selective, generalised = risk_coverage(risk, confidence)
    best, _ = risk_coverage(risk, -risk)
    aurc = float(selective.mean())
    # The trapezoid rule on the steps 1/n; within a tie the curve is linear anyway.
    augrc = (float(generalised.sum()) - float(generalised[-1]) / 2) / len(risk)
    return {"aurc": aurc, "e_aurc": aurc - float(best.mean()), "augrc": augrc}


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
    ranks = scipy.stats.rankdata(-confidence)
    pairs = ranks[failed].sum() - failures * (failures + 1) / 2
    return float(pairs / (failures * others)), failures


def referral(dice: ArrayLike, confidence: ArrayLike) -> dict[str, np.ndarray]:
    """Returns the mean Dice kept as cases are referred to a human one by one.

    By the share referred (0, 1/n ... (n - 1)/n): kept_dice, the least certain first;
    random_dice, in any order; oracle_dice, the worst first. float64 (n,).
    """
    dice, confidence = complete(dice, confidence)
    n = len(dice)
    kept, best = (
        1.0 - risk_coverage(1.0 - dice, order)[0][::-1] for order in (confidence, dice)
    )
    return {
        "referred": np.arange(n) / max(n, 1),
        "kept_dice": kept,
        "random_dice": np.full(n, dice.mean() if n else np.nan),
        "oracle_dice": best,
    }


def referral_gain(dice: ArrayLike, confidence: ArrayLike) -> float | None:
    """Returns the area between referral curve and random as a share of the oracle's.

    1: as good as knowing Dice; 0: as good as chance; negative: worse. None when all
    Dice are equal (no order is better than another) or there is no case.
    """
    _, kept, random, best = referral(dice, confidence).values()
    if len(best) == 0 or np.ptp(best) == 0:
        return None
    return float(np.sum(kept - random)) / float(np.sum(best - random))
