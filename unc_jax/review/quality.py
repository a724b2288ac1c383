"""Predicted Dice of a case from its uncertainty measures, with a guaranteed bound.

Score: the case's mean rank among reference cases over the measures, turned so that
more is better. Map: isotonic regression of Dice on the score. Bound: conformal, from
the residuals of the map on cases that it was not fitted to.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression

from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.cases_table import REVIEW_COLUMNS, Row
from unc_jax.study.run_folder import Run
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

_FEWEST = 3
_FOLDS = 10

Values = dict[str, Any]  # a row of a table, or one value per measure


class Estimate(NamedTuple):
    """Predicted Dice and its bounds; a bound is NaN where the level supports none."""

    predicted: float
    lower: float
    upper: float


class Map(NamedTuple):
    """Map from measures to Dice, fitted to some cases.

    Attributes:
      reference: measure -> sorted values, signed so that more is better.
      scores: increasing, of the fitted cases (k,).
      dice: fitted Dice at `scores`, never falling (k,).
    """

    reference: dict[str, list[float]]
    scores: list[float]
    dice: list[float]


class Quality(NamedTuple):
    """A map, and how far it was off on the calibration cases.

    Attributes:
      method: "split": the map knows none of the calibration cases; "cross": each
        case's residual is of a map that was fitted without its fold.
      residuals: map less true Dice on the calibration cases.
    """

    method: str
    residuals: list[float]
    map: Map

    @property
    def support(self) -> str:
        """Cases and greatest level that the bounds rest on, in words."""
        n = len(self.residuals)
        bound = "" if self.method == "split" else ", proved for 2 level - 1"
        return (
            f"{n} cases ({self.method}{bound}); they support levels up to "
            f"{greatest_level(n):.3f}"
        )


def fit(
    rows: Sequence[Values],
    *,
    method: str = "split",
    calibration: Sequence[Values] | None = None,
    measures: Sequence[str] = PAPER_MEASURES,
) -> Quality:
    """Fits map and residuals to cases with a known Dice.

    Args:
      rows: of a run's cases.csv. The map is fitted to the training cases and calibrated
        on the validation cases, never on test cases. Rows without a split are fitted
        to by themselves ("cross").
      method: "cross" fits to training and validation cases and takes each residual from
        a map without the case's fold (jackknife+ and CV+; Barber et al., 2021).
      calibration: cases of the user's own, instead of the validation cases.
      measures: names of those that the score takes.

    Cases whose Dice or measures are undefined are left out.

    Raises:
      InputError: fewer than three cases to fit to, or to calibrate with.
    """
    parts: dict[str, list[Values]] = {"train": [], "validation": [], "test": [], "": []}
    for row in _known(rows, measures):
        parts[row.get("split") or ""].append(row)
    if method == "cross" or (not parts["train"] and not parts["validation"]):
        known = parts["train"] + parts["validation"] + parts[""]
        known += _known(calibration or (), measures)
        _check_enough(known, "fit the quality map to")
        residuals = _residuals_of_folds(known, measures)
        return Quality("cross", residuals, fit_map(known, measures))
    wanted = parts["validation"] if calibration is None else calibration
    held_out = _known(wanted, measures)
    _check_enough(parts["train"], "fit the quality map to")
    _check_enough(held_out, "calibrate the quality map with")
    found = fit_map(parts["train"], measures)
    return Quality("split", _residuals(found, held_out), found)


def fit_map(rows: Sequence[Values], measures: Sequence[str] = PAPER_MEASURES) -> Map:
    """Fits the isotonic regression of Dice on the score (Barlow et al., 1972).

    Cases of one score are pooled.
    """
    reference = {
        name: sorted(MEASURES[name].sign * float(row[name]) for row in rows)
        for name in measures
    }
    scores = np.array([_score(reference, row) for row in rows])
    dice = np.array([float(row["dice"]) for row in rows])
    places, group = np.unique(scores, return_inverse=True)
    weights = np.bincount(group)
    means = np.bincount(group, dice) / weights
    fitted = isotonic_regression(means, weights=weights).x
    return Map(reference, places.tolist(), fitted.tolist())


def map_dice(fitted: Map, measures: Values) -> float:
    """Returns the predicted Dice in [0, 1]: linear between fitted cases, level beyond.

    It never falls when a measure gets better. An undefined measure counts as the worst.
    """
    score = _score(fitted.reference, measures)
    return float(np.clip(np.interp(score, fitted.scores, fitted.dice), 0, 1))


def predict(quality: Quality, measures: Values, level: float) -> Estimate:
    """Returns the predicted Dice and its one-sided bounds at `level`.

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


def with_estimate(row: Row, quality: Quality | None, level: float) -> Row:
    """Returns a review's row with predicted Dice and lower bound, where it has them."""
    if quality is None or not cases_table.is_usable(row):
        return row
    found = predict(quality, row, level)
    predicted = {"predicted_dice": found.predicted, "dice_lower": found.lower}
    return cases_table.new_row(REVIEW_COLUMNS, **{**row, **predicted})


def greatest_level(calibration_cases: int) -> float:
    """Returns the highest level that n cases support, n / (n + 1); 0.928 for 13."""
    return calibration_cases / (calibration_cases + 1)


def to_json(quality: Quality) -> dict[str, Any]:
    """Returns plain JSON; `from_json` gives the same back."""
    return {**quality._asdict(), "map": quality.map._asdict()}


def from_json(content: Any, source: str) -> Quality:
    """Reads `to_json`; InputError names `source` when it is something else."""
    try:
        fitted = Map(**content["map"])
        quality = Quality(content["method"], content["residuals"], fitted)
        numbers = [*quality.residuals, *fitted.scores, *fitted.dice]
        whole = set(fitted.reference) == set(PAPER_MEASURES) and len(fitted.dice) > 0
        whole = whole and len(fitted.scores) == len(fitted.dice)
        if not whole or not np.isfinite(np.array(numbers, float)).all():
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InputError(
            f"{source} is no quality map; delete it and run --stage evaluate again"
        ) from None
    return quality


def of_run(run: Run) -> Quality | None:
    """Reads the quality map of a run; None where it had too few cases for one."""
    if run.quality is None:
        return None
    return from_json(run.quality, str(run.path / "quality.json"))


def _score(reference: dict[str, list[float]], measures: Values) -> float:
    """Returns the mean mid-rank among the reference cases, over measures, in [0, 1]."""
    ranks = []
    for name, ordered in reference.items():
        value = measures[name]
        if value is None or math.isnan(value):
            ranks.append(0.0)
            continue
        signed = MEASURES[name].sign * float(value)
        below = np.searchsorted(ordered, signed, "left")
        ranks.append((below + np.searchsorted(ordered, signed, "right")) / 2)
    return float(np.mean(ranks)) / len(next(iter(reference.values())))


def _residuals(fitted: Map, rows: Sequence[Values]) -> list[float]:
    return [map_dice(fitted, row) - float(row["dice"]) for row in rows]


def _residuals_of_folds(rows: Sequence[Values], measures: Sequence[str]) -> list[float]:
    folds = min(_FOLDS, len(rows))
    residuals = []
    for fold in range(folds):
        inside = [row for i, row in enumerate(rows) if i % folds != fold]
        outside = [row for i, row in enumerate(rows) if i % folds == fold]
        residuals += _residuals(fit_map(inside, measures), outside)
    return residuals


def _known(rows: Sequence[Values], measures: Sequence[str]) -> list[Values]:
    names = ("dice", *measures)
    return [row for row in rows if all(row[name] is not None for name in names)]


def _check_enough(rows: Sequence[Values], what: str) -> None:
    if len(rows) < _FEWEST:
        raise InputError(
            f"{len(rows)} cases with Dice and measures to {what}, at least {_FEWEST} "
            "are needed; name more by --calibrate CASES_CSV"
        )
