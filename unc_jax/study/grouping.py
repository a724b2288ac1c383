"""Models: runs grouped by config.

A model consists of the runs of one config, which differ only in the seed; the folds of
one seed count as one run. An ensemble of seeds is a separate model from that of its
single members.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unc_jax.errors import InputError
from unc_jax.study import comparable_runs, folds
from unc_jax.study.comparable_runs import check_comparable
from unc_jax.study.paper_numbers import patch_size
from unc_jax.study.run_folder import TARGETS, RunFolder

# Data sets of livers, by folder name; others have a whole organ and a part of it.
_LIVER_WORDS = ("liver", "lits", "phantom", "synthetic")
_LIVER_VALUES = [1, 2]  # liver and tumours, as Task03_Liver has them
_STRUCTURES = {"liver": "whole", "tumor": "part"}


class Model(NamedTuple):
    """The runs of one config, by seed. `size` is "large", "small" or "x" by "x"."""

    target: str
    loss: str
    size: str
    patch: tuple[int, ...]
    # Fields, and values, that set it apart from another of that name.
    settings: dict[str, Any]
    # Values of the settings that more than half of the models of that name have.
    usual: dict[str, Any]
    runs: tuple[RunFolder, ...]
    source: str = ""  # of the samples, in words; "" where no ensemble is compared

    @property
    def variant(self) -> str:
        """Returns all settings in words; "" without any."""
        return _in_words(self.settings)

    @property
    def unusual(self) -> str:
        """Returns the settings that are not the usual ones in words; "" without any."""
        return _in_words(
            {
                name: value
                for name, value in self.settings.items()
                if name not in self.usual or value != self.usual[name]
            }
        )

    @property
    def trained(self) -> str:
        """Returns structure, size, loss and all settings: the key of a training."""
        words = (self.structure, self.size, self.loss, self.variant)
        return " ".join(filter(None, words))

    @property
    def name(self) -> str:
        """Returns structure, size, loss, unusual settings, and source of the samples.

        In a study that changes one setting of many, the name tells only that one.
        """
        words = (self.structure, self.size, self.loss, self.unusual)
        return ": ".join(filter(None, (" ".join(filter(None, words)), self.source)))

    @property
    def is_ensemble(self) -> bool:
        """Tells whether the samples of a run come from several networks."""
        return len(self.runs[0].seeds) > 1

    @property
    def data(self) -> str:
        """Returns the name of the data set's folder."""
        return Path(str(self.runs[0].config.get("data.root", "unnamed"))).name

    @property
    def structure(self) -> str:
        """Returns the name of the target; other organs have a whole and a part.

        Labels given by value may be of any organ, in a data set of livers too.
        """
        given = self.runs[0].config.get("data.liver_labels") or _LIVER_VALUES
        of_liver = any(word in self.data.lower() for word in _LIVER_WORDS)
        usual = list(given) == _LIVER_VALUES
        return self.target if of_liver and usual else _STRUCTURES[self.target]


def group(runs: Sequence[RunFolder]) -> list[Model]:
    """Returns models in the order of the paper's tables, runs of each by seed.

    The largest patch of a target and data.shape is "large" and the smallest "small". A
    single patch size is called by its width (`paper_numbers.patch_size`).
    Raises InputError when two runs have the same config and seed or weights, runs of
    one target differ in cases, splits or references, folds are incomplete, or a run has
    too few test cases.
    """
    runs = folds.join(runs)
    for run in runs:
        comparable_runs.check_rows(run)
    by_config: dict[str, list[RunFolder]] = {}
    for run in runs:
        key = json.dumps([len(run.seeds), run.defining], sort_keys=True)
        same = by_config.setdefault(key, [])
        for other in same:
            if other.seeds == run.seeds:
                raise InputError(
                    f"{other.path} and {run.path} are one config with one seed "
                    f"({run.seeds_text}); name each run once"
                )
            if _weights(run) and _weights(run) == _weights(other):
                raise InputError(
                    f"{other.path} and {run.path} have the same weights but other "
                    "seeds in config.json; name a training once"
                )
        same.append(run)
    for target in TARGETS:
        check_comparable([run for run in runs if run.target == target])
    patches: dict[tuple, set[tuple[int, ...]]] = {}
    for run in runs:
        patches.setdefault((run.target, run.shape), set()).add(run.patch)
    models = []
    for same in by_config.values():
        same.sort(key=lambda run: run.seeds)
        first = same[0]
        size = _size(first, patches[first.target, first.shape])
        loss = str(first.config["loss.name"])
        models.append(Model(first.target, loss, size, first.patch, {}, {}, tuple(same)))
    models.sort(key=_place)
    models = [model._replace(settings=_settings(model, models)) for model in models]
    models = [model._replace(usual=_usual(model, models)) for model in models]
    if not any(model.is_ensemble for model in models):
        return models
    return [model._replace(source=_source(model.runs[0])) for model in models]


def _weights(run: RunFolder) -> list[Any]:
    """Returns the digests of a run's checkpoints; [] if one is unknown."""
    found = [(part.evaluation or {}).get("checkpoints") for part in run.parts]
    return found if all(found) else []


def _size(run: RunFolder, patches: set[tuple[int, ...]]) -> str:
    if len(patches) == 1:
        return patch_size(run.patch, run.shape)
    ordered = sorted(patches, key=lambda one: (-math.prod(one), one))
    names = {ordered[-1]: "small", ordered[0]: "large"}
    return names.get(run.patch, "x".join(map(str, run.patch)))


def _settings(model: Model, models: list[Model]) -> dict[str, Any]:
    """Returns the fields in which models of its target and of one name differ.

    All names have the same fields, so that a claim finds models of other losses and
    patches with the same settings.
    """
    by_name: dict[tuple, list[dict[str, Any]]] = {}
    for one in models:
        if one.target == model.target:
            by_name.setdefault(one[:3], []).append(_of_training(one))
    own, varied = _of_training(model), set()
    for first, *others in by_name.values():
        for other in others:
            names = first.keys() | other.keys()
            varied |= {name for name in names if first.get(name) != other.get(name)}
    return {name: own.get(name) for name in sorted(varied)}


def _usual(model: Model, models: list[Model]) -> dict[str, Any]:
    """Returns the settings' values that more than half of its name's models have."""
    same = [one.settings for one in models if one[:3] == model[:3]]
    found = {}
    for name in model.settings:
        values = [one[name] for one in same]
        common = max(values, key=values.count)
        if 2 * values.count(common) > len(values):
            found[name] = common
    return found


def _in_words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings.items())


def _place(model: Model) -> tuple:
    """Returns the sort key of a model; an ensemble follows its members."""
    by_dropout = _source_field(model.runs[0]) == "dropout"
    order = (TARGETS.index(model.target), model.loss, model.size, -model.patch[0])
    return (*order, model.is_ensemble, model.is_ensemble and by_dropout)


def _of_training(model: Model) -> dict[str, Any]:
    """Returns the defining fields; for ensembles with evaluate.source "dropout"."""
    run = model.runs[0]
    source = "dropout" if model.is_ensemble else _source_field(run)
    return {**run.defining, "evaluate.source": source}


def _source_field(run: RunFolder) -> str:
    return str(run.config.get("evaluate.source", "dropout"))


def _source(run: RunFolder) -> str:
    """Describes the source of a run's samples in words."""
    networks, source = len(run.seeds), _source_field(run)
    samples = max(int(row["n_samples"] or 0) for row in run.rows)
    if networks == 1:
        return f"MC dropout, {samples} samples" if source == "dropout" else source
    if source == "ensemble":
        return f"ensemble of {networks} seeds"
    return f"{samples // networks} samples of each of {networks} seeds"
