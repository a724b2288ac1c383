"""Selective prediction: quality of the cases kept when uncertain ones are set aside.

Functions take the risk of each case (here 1 - Dice, so 0 is perfect) or its Dice, and a
confidence (higher is more certain; the negative of an uncertainty measure). For cases
of equal confidence each result is the exact mean over all their orders, so that it does
not depend on the order of the cases and reaches coverage 1.

A missing value is NaN; cases with a missing value are left out. Undefined results are
None.
"""

import numpy as np
import scipy
from numpy.typing import ArrayLike

from unc_jax.study.statistics import complete


def risk_coverage(
    risk: ArrayLike, confidence: ArrayLike
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the risk of the k most certain of n cases, k = 1 ... n, float64 (n,).

    risk, confidence: (cases,). The first result is the mean risk (selective risk), the
    second the summed risk / n (generalised risk). Within a tie of m cases with mean
    risk r each adds r, the expectation over the m! orders. Raises ValueError when the
    lengths differ.
    """
    risk, confidence = complete(risk, confidence)
    # Equal confidences share a block; blocks from the surest down.
    _, block = np.unique(-confidence, return_inverse=True)
    sizes = np.bincount(block)
    means = np.bincount(block, weights=risk) / np.maximum(sizes, 1)
    summed = np.cumsum(means[np.sort(block)])
    return summed / np.arange(1, len(risk) + 1), summed / max(len(risk), 1)


def areas(risk: ArrayLike, confidence: ArrayLike) -> dict[str, float | None]:
    """Returns {aurc, e_aurc, augrc} of risks (cases,), in their unit; None if empty.

    AURC = (1/n) sum_k (mean risk of the k most certain), and E-AURC = AURC minus the
    AURC of cases ordered by their risk (Geifman et al., Bias-reduced uncertainty
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
    """Returns the AUROC of low confidence for Dice < threshold, and the failure count.

    The AUROC is the probability that a failure has a lower confidence than another
    case, ties counted half (Mann-Whitney U over the number of pairs). It is None when
    no case fails or all do.
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
    """Returns the mean Dice of the cases kept when others are referred to a human.

    All are float64 (n,). referred: share of the cases referred, 0, 1/n ... (n - 1)/n;
    kept_dice: the least certain are referred first; random_dice: in random order;
    oracle_dice: the worst are referred first.
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
    """Returns the area between the referral and random curves, relative to the oracle.

    1 is as good as knowing the Dice, 0 as good as chance, negative is worse. None when
    all Dice are equal (no order is better than another) or there is no case.
    """
    dice, confidence = complete(dice, confidence)
    if len(dice) == 0 or np.ptp(dice) == 0:
        return None
    _, kept, random, best = referral(dice, confidence).values()
    return float(np.sum(kept - random)) / float(np.sum(best - random))
