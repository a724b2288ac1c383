"""All figures of a comparison of models: the content of statistics.json.

Every number is a function of the rows of cases.csv. Values of a model are means over
its runs (seeds), with the value of each run and their spread beside.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from unc_jax.study import (
    cases_table,
    claims,
    paired,
    run_folder,
    statistics,
    voxel_report,
)
from unc_jax.study.appraisal import Scores, appraise, between, scores, spread
from unc_jax.study.claims import Cell
from unc_jax.study.models import Model
from unc_jax.study.paired import Estimate, Finding
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES


class Resamples(NamedTuple):
    """How often and from which seed cases and runs are drawn."""

    count: int = 5000
    seed: int = 0

    def cases(self, ids: Sequence[str]) -> np.ndarray:
        return paired.resampled_cases(ids, resamples=self.count, seed=self.seed)

    def runs(self, model: Model) -> np.ndarray:
        return paired.resampled_runs(
            model.name, len(model.runs), resamples=self.count, seed=self.seed
        )


def compare(
    models: Sequence[Model],
    *,
    policy: str = "exclude",
    resamples: Resamples | None = None,
) -> dict[str, Any]:
    """The content of statistics.json; no value in it is NaN, what is undefined is None.

    policy: of empty cases, "exclude" or "zero"; both are in `empty_cases`.
    """
    resamples = resamples or Resamples()
    strengths, described = {}, []
    for model in models:
        tests = [scores(run, policy) for run in model.runs]
        found = correlations(model, tests, resamples)
        for name in PAPER_MEASURES:
            sign = MEASURES[name].sign
            rho = found[name]
            cell = Cell(model.target, model.loss, model.size, model.variant, name)
            value = None if rho.value is None else sign * rho.value
            strengths[cell] = Estimate(value, sign * rho.draws)
        described.append(_describe(model, tests, found, policy, resamples))
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


def _scope(models: Sequence[Model]) -> str:
    """What the intervals are over."""
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


def correlations(
    model: Model, tests: Sequence[Scores], resamples: Resamples
) -> dict[str, Estimate]:
    """Spearman's rho with Dice of each measure, mean over runs, with its draws."""
    drawn = resamples.cases(tests[0].ids)
    chosen = resamples.runs(model)
    return {
        name: paired.over_seeds(
            [statistics.spearman(t.measures[name], t.dice).rho for t in tests],
            [paired.resampled_spearman(t.measures[name], t.dice, drawn) for t in tests],
            chosen,
        )
        for name in MEASURES
    }


def _describe(
    model: Model,
    tests: Sequence[Scores],
    found: dict[str, Estimate],
    policy: str,
    resamples: Resamples,
) -> dict[str, Any]:
    return {
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
        "dice": _dice(model, tests, policy, resamples),
        "voxels": voxel_report.describe([run.voxels for run in model.runs]),
        "measures": {
            name: {
                **_finding(paired.finding(found[name])),
                **appraise(tests, name),
            }
            for name in MEASURES
        },
    }


def _dice(
    model: Model, tests: Sequence[Scores], policy: str, resamples: Resamples
) -> dict[str, Any]:
    """Mean Dice by split; of the test cases with an interval."""
    result = {}
    for split in cases_table.SPLITS:
        columns = [
            cases_table.column(
                run_folder.with_empty_cases(run.rows, policy), "dice", split
            )
            for run in model.runs
        ]
        defined = [one[~np.isnan(one)] for one in columns]
        result[split] = {
            **spread([float(d.mean()) if len(d) else None for d in defined]),
            "n": [len(d) for d in defined],
        }
    drawn, chosen = resamples.cases(tests[0].ids), resamples.runs(model)
    means = [paired.resampled_mean(t.dice, drawn) for t in tests]
    estimate = paired.over_seeds(result["test"]["by_seed"], means, chosen)
    result["test"]["ci95"] = _finding(paired.finding(estimate))["ci95"]
    result["test"]["rho_between_seeds"] = between([t.dice for t in tests])
    return result


def _differences(strengths: dict[Cell, Estimate]) -> list[dict[str, Any]]:
    """Of any two cells of a target that differ in one thing; p is not corrected."""
    listed = []
    for (one, first), (two, second) in combinations(strengths.items(), 2):
        changed = sum(a != b for a, b in zip(one, two, strict=True))
        if one.target == two.target and changed == 1:
            found = paired.finding(paired.mean_difference([(first, second)]))
            listed.append({"first": list(one), "second": list(two), **_finding(found)})
    return listed


def _empty_cases(model: Model) -> dict[str, Any]:
    """What the policy does to the first run's row."""
    run = model.runs[0]
    test = [row for row in run.rows if row["split"] == "test"]
    result: dict[str, Any] = {
        "name": model.name,
        "empty_prediction": sum(row["volume_ml"] == 0 for row in test),
        "empty_reference": sum(row["reference_ml"] == 0 for row in test),
        "both_empty": sum(
            row["volume_ml"] == 0 and row["reference_ml"] == 0 for row in test
        ),
    }
    for policy in run_folder.EMPTY_CASES:
        one = scores(run, policy)
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
        **_finding(one.finding),
        "p_holm": one.p_holm,
        "pairs": one.pairs,
        "sentence": one.sentence,
    }


def _finding(one: Finding) -> dict[str, Any]:
    interval = None if one.low is None else [one.low, one.high]
    return {"value": one.value, "ci95": interval, "p_bootstrap": one.p}
