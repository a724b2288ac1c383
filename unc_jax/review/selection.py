"""Conformal selection: cases that may be released without human review.

Jin and Candes, Selection by Prediction with Conformal p-values, JMLR 2023
(arXiv 2210.01408). Under exchangeability of calibration and new cases the expected
share of bad cases among those released is at most the level.
"""

import math

import numpy as np
import scipy
from numpy.typing import ArrayLike


def release(
    scores: ArrayLike, calibration: ArrayLike, bad: ArrayLike, level: float
) -> np.ndarray:
    """Returns which cases to release, bool (m,).

    Args:
      scores: of the new cases (m,), higher is better; NaN is never released.
      calibration: scores of the calibration cases (n,).
      bad: whether each calibration case is bad, bool (n,).
      level: largest expected share of bad cases among the released ones.
    """
    return benjamini_hochberg(p_values(scores, calibration, bad), level)


def p_values(scores: ArrayLike, calibration: ArrayLike, bad: ArrayLike) -> np.ndarray:
    """Returns the conformal p-values of "this case is bad", float64 (m,).

    p = (1 + number of bad calibration cases that score at least as high) / (n + 1); a
    NaN score has p = 1.
    """
    scores = np.asarray(scores, float)
    calibration = np.asarray(calibration, float)
    worst = np.sort(calibration[np.asarray(bad, bool)])
    above = len(worst) - np.searchsorted(worst, scores, "left")
    found = (1 + above) / (len(calibration) + 1)
    return np.where(np.isnan(scores), 1.0, found)


def benjamini_hochberg(p: ArrayLike, level: float) -> np.ndarray:
    """Returns which hypotheses are rejected, bool (m,): the k smallest p-values.

    k is the largest number whose k-th smallest p-value is at most level k / m.
    """
    # The margin tolerates rounding where both sides are equal.
    return scipy.stats.false_discovery_control(p) <= level + 1e-12


def fewest_calibration_cases(level: float) -> int:
    """Returns the least number of calibration cases to release any; 9 for 0.1."""
    return math.ceil(1 / level - 1 - 1e-9)
