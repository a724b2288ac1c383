"""Comparison of models: runs grouped by config, and the content of statistics.json.

A model is the runs of one config, which differ only by seed; the folds of one seed
count as one run. Every number is a function of the rows of cases.csv. Values of a model
are means over its runs, with the value of each run and their spread beside.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.errors import InputError
from unc_jax.study import claims, folds, run_folder, statistics, voxel_agreement
from unc_jax.study.appraisal import appraise, between, resampled, rows_of_split
from unc_jax.study.cases_table import SPLITS, Row, column
from unc_jax.study.claims import Cell
from unc_jax.study.run_folder import EMPTY_CASES, TARGETS, Run, check_comparable
from unc_jax.study.statistics import RESAMPLES, SEED, Estimate, finding, spread
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

# Data sets of livers, by folder name; others have a whole organ and a part of it.
_LIVER_WORDS = ("liver", "lits", "phantom", "synthetic")
_STRUCTURES = {"liver": "whole", "tumor": "part"}
_DESCRIBED = ("name", "target", "loss", "size", "patch", "variant", "data")
# The paper's patches are 1/2 and 1/4 as wide as the volume; half way between them.
_SMALL_BELOW = 3 / 8


class Model(NamedTuple):
    """The runs of one config, by seed. `size` is "large", "small" or "x" by "x"."""

    target: str
    loss: str
    size: str
    patch: tuple[int, ...]
    variant: str  # fields that set it apart from another of that name; "" if none
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        words = (self.structure, self.size, self.loss, self.variant)
        return " ".join(filter(None, words))

    @property
    def data(self) -> str:
        """Returns the name of the data set's folder."""
        return Path(str(self.runs[0].config.get("data.root", "unnamed"))).name

    @property
    def structure(self) -> str:
        """Returns the name of the target; other organs have a whole and a part.

        Labels given by value may be of any organ, in a data set of livers too.
        """
        given = self.runs[0].config.get("data.liver_labels")
        of_liver = any(word in self.data.lower() for word in _LIVER_WORDS)
        return self.target if of_liver and not given else _STRUCTURES[self.target]


def group(runs: Sequence[Run]) -> list[Model]:
    """Returns models in the order of the paper's tables, runs of each by seed.

    The largest patch of a target is "large" and the smallest "small". A patch that is
    alone is small if it is nearer to a quarter than to half of the volume's width.
    Raises InputError when two runs have one config and one seed, runs of one target
    differ in cases, splits or references, folds do not make up a whole, or a run has
    too few test cases.
    """
    runs = folds.join(runs)
    for run in runs:
        run_folder.check_rows(run)
    by_config: dict[str, list[Run]] = {}
    for run in runs:
        same = by_config.setdefault(json.dumps(run.defining, sort_keys=True), [])
        for other in same:
            if other.seed == run.seed:
                raise InputError(
                    f"{other.path} and {run.path} are one config with one seed "
                    f"({run.seed}); name each run once"
                )
        same.append(run)
    patches = {}
    for target in TARGETS:
        own = [run for run in runs if run.target == target]
        check_comparable(own)
        patches[target] = {run.patch for run in own}
    models = []
    for same in by_config.values():
        same.sort(key=lambda run: run.seed)
        first = same[0]
        size, loss = _size(first, patches[first.target]), str(first.config["loss.name"])
        models.append(Model(first.target, loss, size, first.patch, "", tuple(same)))
    models.sort(key=lambda m: (TARGETS.index(m.target), m.loss, m.size, -m.patch[0]))
    return [model._replace(variant=_variant(model, models)) for model in models]


def compare(
    models: Sequence[Model],
    *,
    policy: str = "exclude",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Returns the content of statistics.json, without NaN: undefined values are None.

    policy: of empty cases, "exclude" or "zero"; both are in `empty_cases`. resamples,
    seed: of the bootstrap over cases and runs.
    """
    strengths, described = {}, []
    for model in models:
        runs = [run_folder.with_empty_cases(run.rows, policy) for run in model.runs]
        tests = [rows_of_split(rows) for rows in runs]
        rhos, dice = _estimates(model.name, tests, resamples, seed)
        for name in PAPER_MEASURES:
            sign, rho = MEASURES[name].sign, rhos[name]
            cell = Cell(model.target, model.loss, model.size, model.variant, name)
            value = None if rho.value is None else sign * rho.value
            strengths[cell] = Estimate(value, sign * rho.draws)
        described.append(
            {
                **{field: getattr(model, field) for field in _DESCRIBED},
                "seeds": [run.seed for run in model.runs],
                "folds": len(model.runs[0].folds),
                "runs": [str(part.path) for run in model.runs for part in run.parts],
                "n_test": len(tests[0]),
                "dice": _dice(runs, tests, dice),
                "voxels": voxel_agreement.describe([run.voxels for run in model.runs]),
                "measures": {
                    name: {**finding(rhos[name]), **appraise(tests, name)}
                    for name in MEASURES
                },
            }
        )
    return {
        "empty_cases_policy": policy,
        "resamples": resamples,
        "resample_seed": seed,
        "scope": _scope(models),
        "models": described,
        "claims": claims.judge(strengths),
        "differences": claims.differences(strengths),
        "empty_cases": [
            {"name": model.name, **_empty_cases(model.runs[0].rows)} for model in models
        ],
    }


def _estimates(
    name: str, tests: Sequence[list[Row]], resamples: int, seed: int
) -> tuple[dict[str, Estimate], Estimate]:
    """Returns the means over runs of each measure's rho with Dice, and of Dice."""
    cases = resampled(tests[0], resamples, seed)
    chosen = statistics.resampled_runs(name, len(tests), resamples=resamples, seed=seed)
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
    """Returns the mean Dice by split, of the test cases with an interval."""
    result = {}
    for split in SPLITS:
        columns = [column(rows, "dice", split) for rows in runs]
        counts = [int(np.isfinite(one).sum()) for one in columns]
        result[split] = spread(map(statistics.mean, columns), n=counts)
    result["test"]["ci95"] = finding(mean)["ci95"]
    result["test"]["rho_between_seeds"] = between(
        [column(rows, "dice") for rows in tests]
    )
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


def _size(run: Run, patches: set[tuple[int, ...]]) -> str:
    if len(patches) == 1:
        shape = run.config.get("data.shape")
        width = shape[0] if isinstance(shape, list) and shape else 0
        return "small" if run.patch[0] < _SMALL_BELOW * width else "large"
    ordered = sorted(patches, key=lambda one: (-math.prod(one), one))
    names = {ordered[-1]: "small", ordered[0]: "large"}
    return names.get(run.patch, "x".join(map(str, run.patch)))


def _variant(model: Model, models: list[Model]) -> str:
    """Returns the fields whose values set `model` apart from others of its name."""
    configs = [one.runs[0].defining for one in models if one[:3] == model[:3]]
    own = model.runs[0].defining
    names = sorted({name for config in configs for name in config})
    differing = [n for n in names if any(c.get(n) != own.get(n) for c in configs)]
    return ", ".join(f"{name}={own.get(name)}" for name in differing)
