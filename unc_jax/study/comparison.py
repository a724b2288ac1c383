"""Comparison of models: the content of statistics.json.

Every number is a function of the rows of cases.csv. Values of a model are means over
its runs, together with the value of each run and their spread.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unc_jax.study import (
    claims,
    run_folder,
    split_half,
    statistics,
    voxel_agreement,
)
from unc_jax.study.appraisal import appraise, between, resampled, rows_of_split
from unc_jax.study.cases_table import SPLITS, Row, column
from unc_jax.study.grouping import Model
from unc_jax.study.run_folder import EMPTY_CASES
from unc_jax.study.statistics import RESAMPLES, SEED, Estimate, finding, spread
from unc_jax.study.strength import Cell, Ranking, build_paired, ranking
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

_DESCRIBED = (
    *("name", "target", "loss", "size", "patch", "settings", "unusual", "source"),
    "data",
)


def compare(
    models: Sequence[Model],
    *,
    policy: str = "exclude",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Returns the content of statistics.json; undefined values are None, never NaN.

    policy: for undefined values of empty cases, "exclude" or "zero"; the result has
    both in `empty_cases`. resamples, seed: of the bootstrap over cases and runs.
    """
    rankings: dict[Cell, Ranking] = {}
    strengths, described = {}, []
    for model in models:
        runs = [run_folder.with_empty_cases(run.rows, policy) for run in model.runs]
        tests = [rows_of_split(rows) for rows in runs]
        drawn = _drawn(model.trained, tests, resamples, seed)
        rhos, dice = _estimates(tests, *drawn)
        for name in PAPER_MEASURES:
            sign, rho = MEASURES[name].sign, rhos[name]
            own = (model.target, model.loss, model.size, model.variant)
            cell = Cell(*own, name, model.source if model.is_ensemble else "")
            value = None if rho.value is None else sign * rho.value
            strengths[cell] = Estimate(value, sign * rho.draws)
            rankings[cell] = ranking(tests, name, *drawn)
        described.append(_describe(model, runs, rhos, dice, drawn))
    paired = build_paired(rankings, strengths)
    wanted = [*claims.CLAIMS, *claims.of_ensembles(strengths)]
    return {
        "empty_cases_policy": policy,
        "resamples": resamples,
        "resample_seed": seed,
        "scope": _scope(models),
        "models": described,
        "claims": claims.judge(strengths, paired, wanted),
        "empty_cases": [
            {"name": model.name, **_empty_cases(model.runs[0].rows)} for model in models
        ],
    }


def _describe(
    model: Model,
    runs: Sequence[list[Row]],
    rhos: Mapping[str, Estimate],
    dice: Estimate,
    drawn: tuple[np.ndarray, np.ndarray],
) -> dict[str, Any]:
    """Returns the content of one model; rhos, dice: means over its runs."""
    tests = [rows_of_split(rows) for rows in runs]
    return {
        **{field: getattr(model, field) for field in _DESCRIBED},
        "seeds": [
            run.seeds_text if model.is_ensemble else run.seed for run in model.runs
        ],
        "folds": len(model.runs[0].folds),
        "runs": [str(part.path) for run in model.runs for part in run.parts],
        "n_test": len(tests[0]),
        "dice": _dice(runs, tests, dice),
        "voxels": voxel_agreement.describe([run.voxels for run in model.runs]),
        "measures": {
            name: {
                **finding(rhos[name]),
                **appraise(tests, name),
                "reliability": split_half.of_runs(tests, name, *drawn),
            }
            for name in MEASURES
        },
    }


def _drawn(
    name: str, tests: Sequence[list[Row]], resamples: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws indices of a model's cases and runs, each int (resamples, number)."""
    count = len(tests)
    return (
        resampled(tests[0], resamples, seed),
        statistics.resampled_runs(name, count, resamples=resamples, seed=seed),
    )


def _estimates(
    tests: Sequence[list[Row]], cases: np.ndarray, chosen: np.ndarray
) -> tuple[dict[str, Estimate], Estimate]:
    """Returns the means over runs of each measure's rho with Dice, and of Dice."""
    dice = [column(rows, "dice") for rows in tests]
    rhos = {
        measure: statistics.mean_over_runs(
            [
                statistics.estimate_spearman(column(rows, measure), own, cases)
                for rows, own in zip(tests, dice, strict=True)
            ],
            chosen,
        )
        for measure in MEASURES
    }
    means = [statistics.estimate_mean(own, cases) for own in dice]
    return rhos, statistics.mean_over_runs(means, chosen)


def _dice(
    runs: Sequence[list[Row]], tests: Sequence[list[Row]], mean: Estimate
) -> dict[str, Any]:
    """Returns the mean Dice by split; for the test cases with an interval."""
    result = {}
    for split in SPLITS:
        columns = [column(rows, "dice", split) for rows in runs]
        counts = [int(np.isfinite(one).sum()) for one in columns]
        result[split] = spread(map(statistics.mean, columns), n=counts)
    result["test"]["ci95"] = finding(mean)["ci95"]
    result["test"]["sd_of_cases"] = _spread_of_cases(tests)
    result["test"]["rho_between_seeds"] = between(
        [column(rows, "dice") for rows in tests]
    )
    return result


def _spread_of_cases(tests: Sequence[list[Row]]) -> float | None:
    """Returns the mean over runs of the cases' standard deviation of Dice."""
    columns = [column(rows, "dice") for rows in tests]
    known = [one[np.isfinite(one)] for one in columns]
    return spread(float(one.std()) if len(one) else None for one in known)["mean"]


def _scope(models: Sequence[Model]) -> str:
    seeds = min((len(one.runs) for one in models if not one.is_ensemble), default=1)
    scope = (
        "Intervals are over test cases only where a model has one training: they say "
        "nothing about training it again."
    )
    if seeds > 1:
        scope = (
            f"Intervals are over test cases and {seeds} or more trainings per model; "
            "a few trainings show their spread only roughly."
        )
    if any(model.is_ensemble for model in models):
        scope += " Those of an ensemble are over test cases alone."
    return scope


def _empty_cases(rows: list[Row]) -> dict[str, Any]:
    """Counts the empty masks of test cases; adds the numbers under both policies."""
    test = [row for row in rows if row["split"] == "test"]
    empty = [(row["volume_ml"] == 0, row["reference_ml"] == 0) for row in test]
    result: dict[str, Any] = {
        "empty_prediction": sum(prediction for prediction, _ in empty),
        "empty_reference": sum(reference for _, reference in empty),
        "both_empty": sum(map(all, empty)),
    }
    for policy in EMPTY_CASES:
        own = run_folder.with_empty_cases(test, policy)
        dice = column(own, "dice")
        result[policy] = {
            "dice": statistics.mean(dice),
            "n": int(np.isfinite(dice).sum()),
            **{
                name: statistics.spearman(column(own, name), dice)._asdict()
                for name in PAPER_MEASURES
            },
        }
    return result
