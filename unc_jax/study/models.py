"""Models: runs of one config, which differ only by seed, as rows of the paper's tables.

Fields that steer neither weights nor samples (where the data lie, batch sizes of the
evaluation, bootstrap) make no other model. That all runs have the same cases is checked
on their rows.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unc_jax.errors import InputError
from unc_jax.study.run_folder import TARGETS, Run, check_comparable

_PLACES = (
    *("data.root", "data.prepared", "data.split_file", "data.skip_bad_cases"),
    *("evaluate.members", "train.checkpoints"),
)
_MECHANICS = (
    *("evaluate.chunk", "evaluate.bootstrap", "evaluate.window_batch"),
    *("evaluate.save_predictions", "train.residence", "train.steps_per_call"),
    *("train.checkpoint_every_steps", "train.rematerialise"),
)
# Data sets of livers, by folder name; others have a whole organ and a part of it.
_LIVER_WORDS = ("liver", "lits", "phantom", "synthetic")
_STRUCTURES = {"liver": "whole", "tumor": "part"}
# The paper's patches are 1/2 and 1/4 as wide as the volume; half way between them.
_SMALL_BELOW = 3 / 8


class Model(NamedTuple):
    """The runs of one config, by seed. `size` is "large", "small" or "x" by "x"."""

    target: str
    loss: str
    size: str
    patch: tuple[int, ...]
    variant: str  # what else sets it apart from another of that name; "" if nothing
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        return " ".join(
            filter(None, (self.structure, self.size, self.loss, self.variant))
        )

    @property
    def data(self) -> str:
        """Returns the name of the data set's folder."""
        return Path(str(self.runs[0].config.get("data.root", "unnamed"))).name

    @property
    def structure(self) -> str:
        """Returns what is segmented; data of another organ have a whole and a part."""
        of_liver = any(word in self.data.lower() for word in _LIVER_WORDS)
        return self.target if of_liver else _STRUCTURES[self.target]


def group(runs: Sequence[Run]) -> list[Model]:
    """Returns models in the order of the paper's tables, runs of each by seed.

    The largest patch of a target is "large" and the smallest "small". A patch that is
    alone is small if it is nearer to a quarter than to half of the volume's width.
    Raises InputError when two runs have one config and one seed, or runs of one target
    differ in cases, splits or references.
    """
    by_config: dict[str, list[Run]] = {}
    for run in runs:
        by_config.setdefault(_identity(run), []).append(run)
    for same in by_config.values():
        _check_seeds(same)
    for target in TARGETS:
        check_comparable([run for run in runs if run.target == target])
    models = []
    for same in by_config.values():
        same.sort(key=lambda run: run.seed)
        first = same[0]
        patches = {run.patch for run in runs if run.target == first.target}
        size = _size(first, patches)
        loss = str(first.config["loss.name"])
        model = Model(first.target, loss, size, first.patch, "", tuple(same))
        models.append(model)
    models.sort(key=lambda m: (TARGETS.index(m.target), m.loss, m.size, -m.patch[0]))
    return [model._replace(variant=_variant(model, models)) for model in models]


def _check_seeds(same: list[Run]) -> None:
    paths: dict[int, Path] = {}
    for run in same:
        if run.seed in paths:
            raise InputError(
                f"{paths[run.seed]} and {run.path} are one config with one seed "
                f"({run.seed}); name each run once"
            )
        paths[run.seed] = run.path


def _identity(run: Run) -> str:
    return json.dumps(_defining(run.config), sort_keys=True)


def _defining(config: dict[str, Any]) -> dict[str, Any]:
    aside = {"seed", *_PLACES, *_MECHANICS}
    return {
        name: value
        for name, value in config.items()
        if name not in aside and not name.startswith("data.phantom_")
    }


def _size(run: Run, patches: set[tuple[int, ...]]) -> str:
    if len(patches) == 1:
        shape = run.config.get("data.shape")
        width = shape[0] if isinstance(shape, list) and shape else 0
        return "small" if run.patch[0] < _SMALL_BELOW * width else "large"
    ordered = sorted(patches, key=lambda one: (-math.prod(one), one))
    if run.patch == ordered[0]:
        return "large"
    return "small" if run.patch == ordered[-1] else "x".join(map(str, run.patch))


def _variant(model: Model, models: list[Model]) -> str:
    """Returns the fields whose values set `model` apart from others of its name."""
    key = (model.target, model.loss, model.size)
    namesakes = [m for m in models if (m.target, m.loss, m.size) == key]
    configs = [_defining(namesake.runs[0].config) for namesake in namesakes]
    own = _defining(model.runs[0].config)
    names = sorted({name for config in configs for name in config})
    differing = [n for n in names if any(c.get(n) != own.get(n) for c in configs)]
    return ", ".join(f"{name}={own.get(name)}" for name in differing)
