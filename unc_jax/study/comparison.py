"""Comparison of models: the content of statistics.json.

Every number is a function of the rows of cases.csv. Values of a model are means over
its runs (seeds), with the value of each run and their spread beside.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from unc_jax.study import cases_table, claims, run_folder, statistics, voxel_agreement
from unc_jax.study.appraisal import Scores, appraise, between, scores
from unc_jax.study.claims import Cell
from unc_jax.study.models import Model
from unc_jax.study.statistics import RESAMPLES, SEED, Estimate, Finding, spread
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES


class Resamples(NamedTuple):
    """Number and seed of the draws of cases and runs."""

    count: int = RESAMPLES
    seed: int = SEED


def compare(
    models: Sequence[Model],
    *,
    policy: str = "exclude",
    resamples: Resamples | None = None,
) -> dict[str, Any]:
    """Returns the content of statistics.json, without NaN: undefined values are None.

    policy: of empty cases, "exclude" or "zero"; both are in `empty_cases`.
    """
    resamples = resamples or Resamples()
    strengths, described = {}, []
    for model in models:
        rows = [run_folder.with_empty_cases(run.rows, policy) for run in model.runs]
        tests = [scores(one) for one in rows]
        rhos, dice = _estimates(model, tests, resamples)
        for name in PAPER_MEASURES:
            sign, rho = MEASURES[name].sign, rhos[name]
            cell = Cell(model.target, model.loss, model.size, model.variant, name)
            value = None if rho.value is None else sign * rho.value
            strengths[cell] = Estimate(value, sign * rho.draws)
        described.append(
            {
                "name": model.name,
                "target": model.target,
                "loss": model.loss,
                "size": model.size,
                "patch": list(model.patch),
                "variant": model.variant,
                "data": model.data,
                "seeds": [run.seed for run in model.runs],
                "runs": [str(run.path) for run in model.runs],
                "n_test": len(tests[0].ids),
                "dice": _dice(rows, tests, dice),
                "voxels": voxel_agreement.describe([run.voxels for run in model.runs]),
                "measures": {
                    name: {**_finding(rhos[name]), **appraise(tests, name)}
                    for name in MEASURES
                },
            }
        )
    return {
        "empty_cases_policy": policy,
        "resamples": resamples.count,
        "resample_seed": resamples.seed,
        "scope": _scope(models),
        "models": described,
        "claims": [_claim(one) for one in claims.judge(strengths)],
        "differences": _differences(strengths),
        "empty_cases": [_empty_cases(model) for model in models],
    }


def _estimates(
    model: Model, tests: Sequence[Scores], resamples: Resamples
) -> tuple[dict[str, Estimate], Estimate]:
    """Means over runs: of each measure's rho with Dice, and of the mean Dice."""
    count, seed = resamples
    cases = statistics.resampled_cases(tests[0].ids, resamples=count, seed=seed)
    runs = statistics.resampled_runs(model.name, len(tests), resamples=count, seed=seed)
    rhos = {
        name: statistics.mean_over_runs(
            [
                statistics.estimate_spearman(t.measures[name], t.dice, cases)
                for t in tests
            ],
            runs,
        )
        for name in MEASURES
    }
    dice = [statistics.estimate_mean(t.dice, cases) for t in tests]
    return rhos, statistics.mean_over_runs(dice, runs)


def _dice(
    rows: Sequence[list[cases_table.Row]], tests: Sequence[Scores], mean: Estimate
) -> dict[str, Any]:
    """Returns the mean Dice by split, of the test cases with an interval."""
    result = {}
    for split in cases_table.SPLITS:
        columns = [cases_table.column(one, "dice", split) for one in rows]
        defined = [one[~np.isnan(one)] for one in columns]
        result[split] = {
            **spread([float(d.mean()) if len(d) else None for d in defined]),
            "n": [len(d) for d in defined],
        }
    result["test"]["ci95"] = statistics.finding(mean).ci95
    result["test"]["rho_between_seeds"] = between([t.dice for t in tests])
    return result


def _scope(models: Sequence[Model]) -> str:
    seeds = min(len(model.runs) for model in models)
    if seeds > 1:
        return (
            f"Intervals are over test cases and {seeds} or more trainings per model; "
            "a few trainings show their spread only roughly."
        )
    return (
        "Intervals are over test cases only where a model has one training: they say "
        "nothing about training it again."
    )


def _differences(strengths: dict[Cell, Estimate]) -> list[dict[str, Any]]:
    """Returns differences of any two cells of a target that differ in one thing.

    p is not corrected for their number.
    """
    return [
        {
            "first": list(one),
            "second": list(two),
            **_finding(statistics.mean_difference([(first, second)])),
        }
        for (one, first), (two, second) in combinations(strengths.items(), 2)
        if one.target == two.target
        and sum(a != b for a, b in zip(one, two, strict=True)) == 1
    ]


def _empty_cases(model: Model) -> dict[str, Any]:
    """Returns the empty masks of the first run, and its numbers under both policies."""
    rows = model.runs[0].rows
    test = [row for row in rows if row["split"] == "test"]
    prediction = [row["volume_ml"] == 0 for row in test]
    reference = [row["reference_ml"] == 0 for row in test]
    result: dict[str, Any] = {
        "name": model.name,
        "empty_prediction": sum(prediction),
        "empty_reference": sum(reference),
        "both_empty": sum(
            one and two for one, two in zip(prediction, reference, strict=True)
        ),
    }
    for policy in run_folder.EMPTY_CASES:
        one = scores(run_folder.with_empty_cases(rows, policy))
        defined = one.dice[~np.isnan(one.dice)]
        result[policy] = {
            "dice": float(defined.mean()) if len(defined) else None,
            "n": len(defined),
            **{
                name: statistics.spearman(one.measures[name], one.dice)._asdict()
                for name in PAPER_MEASURES
            },
        }
    return result


def _claim(one: claims.Verdict) -> dict[str, Any]:
    return {
        "claim": one.claim.text,
        "verdict": one.verdict,
        **_plain(one.finding),
        "p_holm": one.p_holm,
        "pairs": one.pairs,
        "sentence": one.sentence,
    }


def _finding(estimate: Estimate) -> dict[str, Any]:
    return _plain(statistics.finding(estimate))


def _plain(one: Finding) -> dict[str, Any]:
    return {"value": one.value, "ci95": one.ci95, "p_bootstrap": one.p}
