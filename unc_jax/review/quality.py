"""Predicted Dice of a case from its uncertainty measures, with a conformal bound.

The prediction is that of a `dice_map`. The bound is conformal, from the residuals of
the map on cases that neither the network nor the map was fitted to.

The map of a run is fitted to its training cases, whose Dice is slightly higher than
that of new cases; predicted Dice is therefore slightly too high, which the bound
corrects. Maps fitted to half of the validation cases, or shifted by their residuals,
were not more accurate (benchmarks/results/coverage.md).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from unc_jax.errors import InputError, counted
from unc_jax.review.dice_map import Map, Values, fit_map, map_dice, score
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.cases_table import Row
from unc_jax.study.run_folder import RunFolder
from unc_jax.uncertainty.measures import PAPER_MEASURES

# Level of the bounds; another if asked for, or if the cases support only a lower one.
LEVEL = 0.9
_FEWEST = 3
_FOLDS = 10
# In `unlike`: what no calibration case is.
_NO_BOUND = {"features", "intensities", "volume_ml", cases_table.LEAKED}
_NO_BOUND |= {cases_table.IDENTICAL, cases_table.OTHER_COUNT, cases_table.NO_MEASURE}


class DiceEstimate(NamedTuple):
    """Predicted Dice and its lower bound, NaN where too few cases support the level."""

    predicted: float
    lower: float


class Quality(NamedTuple):
    """A map with its residuals on the calibration cases.

    Attributes:
      method: "split": the map was fitted to other cases than the calibration cases;
        "cross": each residual is of a map that was fitted without the case's fold.
      residuals: predicted minus true Dice of the calibration cases.
      scores, dice: score and true Dice of the calibration cases.
      samples: numbers of samples that occur among them; measures of cases with another
        number of samples are not comparable.
    """

    method: str
    residuals: list[float]
    scores: list[float]
    dice: list[float]
    map: Map
    samples: tuple[int, ...]


def fit(
    rows: Sequence[Values],
    *,
    calibration: Sequence[Values] | None = None,
    measures: Sequence[str] = PAPER_MEASURES,
) -> Quality:
    """Fits the map to cases with a known Dice, and computes its residuals.

    Args:
      rows: rows of a run's cases.csv. The map is fitted to the training cases and
        calibrated on the validation cases only. If no row has a split, the map is
        fitted to all rows, and each residual comes from a map that was fitted without
        the case's fold ("cross").
      calibration: the user's own cases, used instead of the validation cases.
      measures: names of the measures in the score.

    Dice is that of `cases_table.with_delivered_dice`. Cases with undefined Dice or
    measures are left out.

    Raises:
      InputError: fewer than three cases to fit to, or to calibrate with; no measures.
    """
    if not measures:
        raise InputError("no measure is known of both the known cases and the new ones")
    known = _known(cases_table.with_delivered_dice(rows), measures)
    if not any(row.get("split") for row in rows):
        _check_enough(known, "fit the quality map to")
        found = fit_map(known, measures)
        residuals = _residuals_of_folds(known, measures)
        return _quality("cross", residuals, known, found)
    train = [row for row in known if row["split"] == "train"]
    if calibration is None:
        held_out = [row for row in known if row["split"] == "validation"]
    else:
        held_out = _known(cases_table.with_delivered_dice(calibration), measures)
    _check_enough(train, "fit the quality map to")
    _check_enough(held_out, "calibrate the quality map with")
    found = fit_map(train, measures)
    return _quality("split", _residuals(found, held_out), held_out, found)


def predict(quality: Quality, measures: Values, level: float) -> DiceEstimate:
    """Returns the predicted Dice and its lower bound at `level`.

    P(Dice >= lower) >= level over cases exchangeable with the calibration cases (Vovk
    et al., 2005; Lei et al., 2018): lower is the prediction minus the k-th smallest
    residual, k = ceil((n + 1) level). For "cross" the residuals
    are those of at most ten folds and the prediction is the map's of all cases: a
    jackknife over folds, which has no proved coverage (Barber et al., 2021, prove
    2 level - 1 for CV+); in simulations it holds at about the level. For k > n the
    bound is NaN (see `greatest_level`); it is never above the prediction.
    """
    predicted = map_dice(quality.map, measures)
    n = len(quality.residuals)
    k = math.ceil((n + 1) * level - 1e-9)
    if k > n:
        return DiceEstimate(predicted, math.nan)
    lower = predicted - np.sort(quality.residuals)[k - 1]
    return DiceEstimate(predicted, float(np.clip(lower, 0, predicted)))


def with_estimate(row: Row, quality: Quality | None, level: float) -> Row:
    """Returns a review's row with predicted Dice and lower bound, where defined.

    A scan whose features, intensities or volume are unlike the training cases has no
    bound, nor has a case with copies among its samples. A case with another number of
    samples than the calibration cases, or without a measure that each of these has, has
    none either, which is added to its `unlike`.
    """
    if quality is None or not cases_table.is_usable(row):
        return row
    own = (cases_table.OTHER_COUNT, cases_table.NO_MEASURE)
    unlike = [one for one in cases_table.unlike(row) if one not in own]
    if any(row[name] is None for name in quality.map.reference):
        unlike.append(cases_table.NO_MEASURE)
    if quality.samples and row["n_samples"] not in quality.samples:
        unlike.append(cases_table.OTHER_COUNT)
    found = predict(quality, row, level)
    lower = math.nan if _NO_BOUND.intersection(unlike) else found.lower
    predicted = {"predicted_dice": found.predicted, "dice_lower": lower}
    told = {**row, **predicted, "unlike": ", ".join(unlike)}
    return cases_table.new_row(REVIEW_COLUMNS, **told)


def greatest_level(calibration_cases: int) -> float:
    """Returns the highest level that n cases support, n / (n + 1); 0.929 for 13."""
    return calibration_cases / (calibration_cases + 1)


def supported_level(quality: Quality | None, level: float) -> float:
    """Returns `level`, or the highest level that the calibration cases support.

    Without calibration cases, and so without a bound, `level` is returned.
    """
    if quality is None or not quality.residuals:
        return level
    return min(level, greatest_level(len(quality.residuals)))


def bound_words(quality: Quality | None, level: float) -> str:
    """Returns a sentence on the level of the lower bounds and its calibration cases."""
    if quality is None:
        return (
            "No predicted Dice and no lower bounds: too few validation cases; name "
            "cases with a reference by --calibrate CASES_CSV."
        )
    n, used = len(quality.residuals), supported_level(quality, level)
    if not n:
        return (
            "No lower bounds of Dice: the calibration cases were segmented with other "
            "flags; name a table of cases with the same flags by --calibrate CASES_CSV."
        )
    asked = f" ({level:g} was asked for)" if used < level else ""
    proved = "" if quality.method == "split" else ": approximately, not proved"
    return (
        f"Lower bounds of Dice hold at level {used:.3g}{asked}: {n} calibration cases "
        f"({quality.method}{proved}) support levels up to {greatest_level(n):.3f}."
    )


def without_calibration(quality: Quality) -> Quality:
    """Returns the map without residuals, for masks made with other flags."""
    return quality._replace(residuals=[], scores=[], dice=[])


def to_json(quality: Quality) -> dict[str, Any]:
    """Returns the content of RUN/quality.json, a record for people."""
    own = {"map": quality.map._asdict(), "samples": list(quality.samples)}
    return {**quality._asdict(), **own}


def of_run(run: RunFolder) -> Quality | None:
    """Returns the quality map of a run; None if it has too few cases."""
    try:
        return fit(run.rows)
    except InputError:
        return None


def _quality(
    method: str, residuals: list[float], rows: Sequence[Values], fitted: Map
) -> Quality:
    scores = [score(fitted, row) for row in rows]
    dice = [float(row["dice"]) for row in rows]
    counts = {int(n) for row in rows if (n := row.get("n_samples"))}
    return Quality(method, residuals, scores, dice, fitted, tuple(sorted(counts)))


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
            f"{counted(len(rows), 'case')} with Dice and measures to {what}, at least "
            f"{_FEWEST} are needed; name more by --calibrate CASES_CSV"
        )
