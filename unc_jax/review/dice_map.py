"""Map from the uncertainty measures of a case to its Dice.

The score of a case is the mean over the measures of its rank among the fitted cases,
signed so that higher is better. The map is an isotonic regression of Dice on the score.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy

from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

Values = dict[str, Any]  # a row of a table, or one value per measure


class Map(NamedTuple):
    """Map from measures to Dice, fitted to some cases.

    Attributes:
      reference: measure -> sorted values of the fitted cases, signed so that higher is
        better.
      scores: distinct scores of the fitted cases, increasing (k,).
      dice: fitted Dice at `scores`, non-decreasing (k,).
    """

    reference: dict[str, list[float]]
    scores: list[float]
    dice: list[float]


def fit_map(rows: Sequence[Values], measures: Sequence[str] = PAPER_MEASURES) -> Map:
    """Fits the isotonic regression of Dice on the score (Barlow et al., 1972).

    Cases with equal scores are pooled.
    """
    reference = {
        name: sorted(MEASURES[name].sign * float(row[name]) for row in rows)
        for name in measures
    }
    scores = np.array([score(Map(reference, [], []), row) for row in rows])
    dice = np.array([float(row["dice"]) for row in rows])
    places, group = np.unique(scores, return_inverse=True)
    weights = np.bincount(group)
    means = np.bincount(group, dice) / weights
    fitted = scipy.optimize.isotonic_regression(means, weights=weights).x
    return Map(reference, places.tolist(), fitted.tolist())


def map_dice(fitted: Map, measures: Values) -> float:
    """Returns the predicted Dice in [0, 1], by linear interpolation of the map.

    It is constant outside the fitted scores and never falls when a measure improves. An
    undefined measure counts as the worst.
    """
    found = np.interp(score(fitted, measures), fitted.scores, fitted.dice)
    return float(np.clip(found, 0, 1))


def score(fitted: Map, measures: Values) -> float:
    """Returns the mean mid-rank among the reference cases, over measures, in [0, 1]."""
    ranks = []
    for name, ordered in fitted.reference.items():
        value = measures[name]
        if value is None or math.isnan(value):
            ranks.append(0.0)
            continue
        signed = MEASURES[name].sign * float(value)
        below = np.searchsorted(ordered, signed, "left")
        ranks.append((below + np.searchsorted(ordered, signed, "right")) / 2)
    return float(np.mean(ranks)) / len(next(iter(fitted.reference.values())))
