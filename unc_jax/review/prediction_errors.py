"""Predicted Dice, judged on test cases: how far off it is, and whether bounds hold.

Neither the network nor map and bounds (`quality`) know these cases: the map is fitted
to training cases, the bounds are calibrated on validation cases. Of folds each has a
map of its own, and their test cases are judged together.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from unc_jax.errors import InputError
from unc_jax.review import quality
from unc_jax.review.quality import Quality
from unc_jax.study import cases_table, selective, statistics
from unc_jax.study.appraisal import (
    DICE_THRESHOLDS,
    FEWEST_FAILURES,
    failures_cell,
    resampled,
    rows_of_split,
)
from unc_jax.study.cases_table import Row, column
from unc_jax.study.run_folder import RunFolder
from unc_jax.study.statistics import spread
from unc_jax.study.tables import Table, interval, number

_THIRDS = ("smallest third", "middle third", "largest third")
_MEANS = ("dice", "mae", "bias", "pearson", "spearman", "coverage", "width")


class Judged(NamedTuple):
    """Test cases of one training: float64 (cases,), NaN where something is missing.

    level: of the bounds; validation: Dice of the validation cases.
    """

    rows: list[Row]
    dice: np.ndarray
    predicted: np.ndarray
    lower: np.ndarray
    level: float
    validation: np.ndarray


def judged(rows: Sequence[Row], model: Quality) -> Judged:
    """Predicts the Dice of the test cases of a run's cases.csv, by its own map.

    Cases with an undefined measure (an empty mask) are left out, as they are where the
    map is calibrated, and as a review gives them no bound.
    """
    rows = cases_table.with_delivered_dice(rows)
    level = quality.supported_level(model, quality.LEVEL)
    test = rows_of_split(rows)
    found = [
        quality.predict(model, row, level)
        if _has_bound(row, model)
        else quality.DiceEstimate(np.nan, np.nan)
        for row in test
    ]
    predicted, lower = (
        np.array([getattr(one, name) for one in found], float)
        for name in ("predicted", "lower")
    )
    validation = column(rows, "dice", "validation")
    return Judged(test, column(test, "dice"), predicted, lower, level, validation)


def _has_bound(row: Row, model: Quality) -> bool:
    measures = (row[name] for name in model.map.reference)
    return cases_table.is_usable(row) and None not in measures


def of_runs(runs: Sequence[RunFolder]) -> dict[str, Any] | None:
    """Returns `describe` of a model's runs, folds joined; None where one has no map."""
    try:
        return describe(
            [
                _joined([judged(one.rows, quality.fit(one.rows)) for one in run.parts])
                for run in runs
            ]
        )
    except InputError:
        return None


def describe(runs: Sequence[Judged]) -> dict[str, Any]:
    """Returns the worth of the predicted Dice on the test cases, means over the runs.

    level: the lowest of the runs; failure_dice: below it a segmentation has failed
    (`failure_dice`); groups: all cases, and thirds of them by the volume of the mask.
    Of each: n; dice, the mean true one; mae, mean |predicted - true|; bias, mean of
    predicted - true; pearson and spearman, of predicted and true; coverage, the share
    of true Dice at or above the lower bound; width, mean of predicted - lower bound;
    failure_auroc, with the number of failures of each run.
    """
    target = failure_dice(np.concatenate([run.validation for run in runs]))
    ordered = [_thirds(column(run.rows, "volume_ml")) for run in runs]
    groups = {"all": _describe(runs, target)}
    for place, name in enumerate(_THIRDS):
        places = [one[place] for one in ordered]
        groups[name] = _describe(list(map(_chosen, runs, places)), target)
    spearmans = [
        statistics.estimate_spearman(run.predicted, run.dice, resampled(run.rows))
        for run in runs
    ]
    runs_drawn = statistics.resampled_runs(
        "", len(runs), resamples=statistics.RESAMPLES, seed=statistics.SEED
    )
    mean = statistics.mean_over_runs(spearmans, runs_drawn)
    groups["all"]["spearman"]["ci95"] = statistics.finding(mean)["ci95"]
    return {
        "level": min(run.level for run in runs),
        "failure_dice": target,
        "groups": groups,
    }


def failure_dice(validation: np.ndarray) -> float:
    """Returns the highest of DICE_THRESHOLDS that at most half of the cases miss.

    So a failure is an exception, where it can be one: where more than half miss them
    all the lowest threshold is returned, and without any case. validation: Dice of the
    validation cases (n,), NaN are left out.
    """
    known = validation[np.isfinite(validation)]
    missed = {target: statistics.mean(known < target) for target in DICE_THRESHOLDS}
    few = [one for one, share in missed.items() if share is not None and share <= 0.5]
    return max(few, default=min(missed))


def table(models: Sequence[dict[str, Any]]) -> Table:
    """Returns a row per model and group of cases.

    models: each with "name" and "predicted_dice", what `describe` returned or None.
    """
    header = (
        *("model", "test cases", "n", "Dice", "MAE", "bias", "Pearson"),
        *("Spearman (95 %)", "coverage (level)", "width", "AUROC (failures)"),
    )
    rows = []
    for model in models:
        found = model["predicted_dice"]
        for group, one in found["groups"].items() if found else ():
            ends = one["spearman"].get("ci95")
            beside = f" ({interval(ends)})" if group == "all" else ""
            rows.append(
                [
                    *(model["name"], group, str(min(one["n"]))),
                    *(number(one[name]["mean"], ".3f") for name in ("dice", "mae")),
                    number(one["bias"]["mean"], "+.3f"),
                    number(one["pearson"]["mean"]),
                    f"{number(one['spearman']['mean'])}{beside}",
                    f"{number(one['coverage']['mean'])} ({found['level']:.2f})",
                    number(one["width"]["mean"], ".3f"),
                    f"< {found['failure_dice']:g}: "
                    f"{failures_cell(one['failure_auroc'])}",
                ]
            )
        if not found:
            missing = [model["name"], "all", "not available"]
            rows.append([*missing, *[""] * (len(header) - len(missing))])
    return Table(
        "Predicted Dice",
        header,
        rows,
        "Predicted Dice of the test cases, means over seeds. The map is fitted to "
        "training cases, its bounds are calibrated on validation cases; of folds each "
        "by its own. Bias: predicted less true. Coverage: share of cases whose true "
        "Dice is not below the lower bound, which is to be the level or more; width: "
        "predicted less lower bound. Thirds: by the volume of the mask. AUROC: of "
        "failures, Dice below a threshold that at most half of the validation cases "
        f"miss ({min(DICE_THRESHOLDS)} where more miss them all), by the predicted "
        f"Dice; of at least {FEWEST_FAILURES} failures and as many others. Not "
        "available: too few training or validation cases with Dice and measures.",
    )


def _joined(parts: Sequence[Judged]) -> Judged:
    if len(parts) == 1:
        return parts[0]
    arrays = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("dice", "predicted", "lower")
    )
    return Judged(
        [row for part in parts for row in part.rows],
        *arrays,
        level=min(part.level for part in parts),
        validation=np.concatenate([part.validation for part in parts]),
    )


def _thirds(volumes: np.ndarray) -> list[np.ndarray]:
    """Returns the places of the cases of each third; without a volume in none."""
    order = np.argsort(volumes, kind="stable")[: np.isfinite(volumes).sum()]
    return np.array_split(order, 3)


def _chosen(run: Judged, places: np.ndarray) -> Judged:
    return run._replace(
        rows=[run.rows[place] for place in places],
        dice=run.dice[places],
        predicted=run.predicted[places],
        lower=run.lower[places],
    )


def _describe(runs: Sequence[Judged], target: float) -> dict[str, Any]:
    found = [_numbers(run) for run in runs]
    aurocs = [
        selective.failure_auroc(run.dice, run.predicted, threshold=target)
        for run in runs
    ]
    known = [int(np.isfinite(run.dice - run.predicted).sum()) for run in runs]
    failures = [count for _, count in aurocs]
    return {
        "n": known,
        **{name: spread([one[name] for one in found]) for name in _MEANS},
        "failure_auroc": spread(
            [one for one, _ in aurocs],
            failures=failures,
            others=[n - count for n, count in zip(known, failures, strict=True)],
        ),
    }


def _numbers(run: Judged) -> dict[str, float | None]:
    off = run.predicted - run.dice
    known = np.isfinite(off)
    dice, predicted = run.dice[known], run.predicted[known]
    varied = known.sum() > 2 and np.ptp(dice) > 0 and np.ptp(predicted) > 0
    covered = np.where(np.isfinite(off), run.dice >= run.lower, np.nan)
    return {
        "dice": statistics.mean(dice),
        "mae": statistics.mean(np.abs(off)),
        "bias": statistics.mean(off),
        "pearson": float(np.corrcoef(dice, predicted)[0, 1]) if varied else None,
        "spearman": statistics.spearman(predicted, dice).rho,
        "coverage": statistics.mean(covered),
        "width": statistics.mean(np.where(known, run.predicted - run.lower, np.nan)),
    }
