"""Predicted Dice of a case from its uncertainty measures, with a guaranteed bound.

Score: the case's mean rank among reference cases over the measures, turned so that
more is better. Map: isotonic regression of Dice on the score. Bound: conformal, from
how far the map was off on cases that it was not fitted to.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from unc_jax.errors import InputError
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

# Sign of the relation with Dice that each measure is meant to have.
SIGNS = {name: MEASURES[name].sign for name in PAPER_MEASURES}
_FEWEST = 3
_FOLDS = 10

Values = dict[str, Any]  # a table's row, or one value per measure


class Estimate(NamedTuple):
    """Predicted Dice and its bounds; a bound is NaN where the level supports none."""

    predicted: float
    lower: float
    upper: float


class Map(NamedTuple):
    """A map from measures to Dice, fitted to some cases.

    Attributes:
      reference: measure -> sorted values, signed so that more is better.
      scores: increasing, of the fitted cases (k,).
      dice: fitted Dice at `scores`, never falling (k,).
    """

    reference: dict[str, list[float]]
    scores: list[float]
    dice: list[float]


class Quality(NamedTuple):
    """All that predicting takes.

    Attributes:
      method: "split": the map knows none of the calibration cases; "cross": each
        case's residual is of a map that was fitted without its fold.
      residuals: map less true Dice on the calibration cases.
      map: what predicts.
    """

    method: str
    residuals: list[float]
    map: Map


def fit(
    rows: Sequence[Values],
    *,
    method: str = "split",
    calibration: Sequence[Values] | None = None,
) -> Quality:
    """Fits map and residuals to cases with a known Dice.

    Args:
      rows: of a run's cases.csv. The map is fitted to the training cases and calibrated
        on the validation cases, never on test cases. Rows without a split are fitted
        to by themselves ("cross").
      method: "cross" fits to training and validation cases and takes each residual from
        a map without the case's fold (jackknife+ and CV+; Barber et al., 2021).
      calibration: cases of the user's own, instead of the validation cases.

    Cases whose Dice or measures are undefined are left out.

    Raises:
      InputError: fewer than three cases to fit to, or to calibrate with.
    """
    parts = _by_split(rows)
    if method == "cross" or (not parts["train"] and not parts["validation"]):
        known = parts["train"] + parts["validation"] + parts[""]
        known += [row for row in calibration or () if _is_known(row)]
        _check_enough(known, "fit the quality map to")
        return Quality("cross", _residuals_of_folds(known), fit_map(known))
    wanted = parts["validation"] if calibration is None else calibration
    held_out = [row for row in wanted if _is_known(row)]
    _check_enough(parts["train"], "fit the quality map to")
    _check_enough(held_out, "calibrate the quality map with")
    found = fit_map(parts["train"])
    return Quality("split", _residuals(found, held_out), found)


def fit_map(rows: Sequence[Values]) -> Map:
    """Isotonic regression of Dice on the score (Barlow et al., 1972), ties pooled."""
    reference = {
        name: sorted(sign * float(row[name]) for row in rows)
        for name, sign in SIGNS.items()
    }
    scores = np.array([_score(reference, row) for row in rows])
    dice = np.array([float(row["dice"]) for row in rows])
    places, group = np.unique(scores, return_inverse=True)
    weights = np.bincount(group)
    means = np.bincount(group, dice) / weights
    fitted = isotonic_regression(means, weights=weights).x
    return Map(reference, places.tolist(), fitted.tolist())


def map_dice(fitted: Map, measures: Values) -> float:
    """Predicted Dice in [0, 1]: linear between the fitted cases, level beyond them.

    Never falls when a measure gets better. An undefined measure counts as the worst.
    """
    score = _score(fitted.reference, measures)
    return float(np.clip(np.interp(score, fitted.scores, fitted.dice), 0, 1))


def predict(quality: Quality, measures: Values, level: float) -> Estimate:
    """Predicted Dice and its one-sided bounds at `level`.

    P(Dice >= lower) >= level, and likewise for upper, over cases exchangeable with the
    calibration cases (Vovk et al., 2005; Lei et al., 2018): lower is the prediction
    less the k-th smallest residual, k = ceil((n + 1) level). For "cross" the guarantee
    that is proved is 2 level - 1; in practice it is close to level. With k > n there is
    no bound: NaN (see `greatest_level`).
    """
    predicted = map_dice(quality.map, measures)
    n = len(quality.residuals)
    k = math.ceil((n + 1) * level - 1e-9)
    if k > n:
        return Estimate(predicted, math.nan, math.nan)
    ordered = np.sort(quality.residuals)
    low, high = predicted - ordered[k - 1], predicted - ordered[n - k]
    return Estimate(predicted, *(float(np.clip(b, 0, 1)) for b in (low, high)))


def greatest_level(calibration_cases: int) -> float:
    """The highest level that n cases support: n / (n + 1); 13 cases give 0.928."""
    return calibration_cases / (calibration_cases + 1)


def to_json(quality: Quality) -> dict[str, Any]:
    """Plain JSON; `from_json` gives the same back."""
    return {**quality._asdict(), "map": quality.map._asdict()}


def from_json(content: Any, source: str) -> Quality:
    """Reads `to_json`; InputError names `source` when it is something else."""
    try:
        fitted = Map(**content["map"])
        quality = Quality(content["method"], content["residuals"], fitted)
        numbers = [*quality.residuals, *fitted.scores, *fitted.dice]
        whole = set(fitted.reference) == set(SIGNS) and len(fitted.dice) > 0
        whole = whole and len(fitted.scores) == len(fitted.dice)
        if not whole or not np.isfinite(np.array(numbers, float)).all():
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{source} is no quality map; delete it and run --stage evaluate again"
        ) from None
    return quality


def _score(reference: dict[str, list[float]], measures: Values) -> float:
    """Mean over the measures of the mid-rank among the reference cases, in [0, 1]."""
    ranks = []
    for name, ordered in reference.items():
        value = measures[name]
        if value is None or math.isnan(value):
            ranks.append(0.0)
            continue
        signed = SIGNS[name] * float(value)
        below = np.searchsorted(ordered, signed, "left")
        ranks.append((below + np.searchsorted(ordered, signed, "right")) / 2)
    return float(np.mean(ranks)) / len(next(iter(reference.values())))


def _residuals(fitted: Map, rows: Sequence[Values]) -> list[float]:
    return [map_dice(fitted, row) - float(row["dice"]) for row in rows]


def _residuals_of_folds(rows: Sequence[Values]) -> list[float]:
    folds = min(_FOLDS, len(rows))
    residuals = []
    for fold in range(folds):
        inside = [row for i, row in enumerate(rows) if i % folds != fold]
        outside = [row for i, row in enumerate(rows) if i % folds == fold]
        residuals += _residuals(fit_map(inside), outside)
    return residuals


def _by_split(rows: Sequence[Values]) -> dict[str, list[Values]]:
    parts: dict[str, list[Values]] = {"train": [], "validation": [], "test": [], "": []}
    for row in rows:
        if _is_known(row):
            parts[row.get("split") or ""].append(row)
    return parts


def _is_known(row: Values) -> bool:
    return all(row[name] is not None for name in ("dice", *SIGNS))


def _check_enough(rows: Sequence[Values], what: str) -> None:
    if len(rows) < _FEWEST:
        raise InputError(
            f"{len(rows)} cases with Dice and measures to {what}, at least {_FEWEST} "
            "are needed; name more by --calibrate CASES_CSV"
        )
