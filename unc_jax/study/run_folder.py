"""Reading of run folders, without writing to them.

config.json holds the settings of the training, evaluation.json those of the rows in
cases.csv, from which readers take evaluate.*. config.json and cases.csv are required,
checkpoints are not; other files of the evaluation (voxels.json, preparation.json) are
read if they exist.
"""

from pathlib import Path
from typing import Any, NamedTuple

from unc_jax.config import Config, check_format, from_flat, upgrade
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.cases_table import OK, Row
from unc_jax.uncertainty.measures import MEASURES

EMPTY_CASES = ("exclude", "zero")
TARGETS = ("liver", "tumor")
_REQUIRED = ("seed", "data.target", "loss.name", "train.patch_shape")
# Fields that affect neither weights nor samples, and fields in which runs of the same
# model may differ.
_ASIDE = (
    *("seed", "data.root", "data.prepared", "data.split_file", "data.skip_bad_cases"),
    *("data.split_seed", "data.fold"),
    *("evaluate.members", "train.checkpoints", "evaluate.chunk", "evaluate.bootstrap"),
    *("evaluate.window_batch", "evaluate.save_predictions", "train.residence"),
    *("train.steps_per_call", "train.checkpoint_every_steps", "train.rematerialise"),
)


class RunFolder(NamedTuple):
    """One evaluated training, or those of all folds joined (`folds.join`).

    Attributes:
      config: flat config {"train.batch": 8, ...}, from `read_fields`.
      rows: rows of cases.csv.
      evaluation, voxels, preparation, features: contents of the JSON files with these
        names; None if missing.
      folds: the runs that were joined; () for a single run.
    """

    path: Path
    config: dict[str, Any]
    rows: list[Row]
    evaluation: dict[str, Any] | None = None
    voxels: dict[str, Any] | None = None
    preparation: dict[str, Any] | None = None
    features: dict[str, Any] | None = None
    folds: tuple["RunFolder", ...] = ()

    @property
    def parts(self) -> tuple["RunFolder", ...]:
        """Returns the runs that were joined into this one, or this one itself."""
        return self.folds or (self,)

    @property
    def defining(self) -> dict[str, Any]:
        """Returns the fields of the config that affect weights or samples."""
        return defining(self.config)

    @property
    def cohort(self) -> str | None:
        """Returns the fingerprint of the prepared cohort; None if unknown."""
        return (self.evaluation or {}).get("cohort")

    @property
    def seed(self) -> int:
        return int(self.config["seed"])

    @property
    def seeds(self) -> tuple[int, ...]:
        """Returns the seeds of the networks in ascending order, one per network."""
        if not self.config.get("evaluate.members"):
            return (self.seed,)
        return tuple(sorted((self.parts[0].evaluation or {})["seeds"]))

    @property
    def seeds_text(self) -> str:
        """Returns the seeds as text: "0", or "0+1+2" for an ensemble."""
        return "+".join(map(str, self.seeds))

    @property
    def target(self) -> str:
        return str(self.config["data.target"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns data.shape; () if unknown."""
        shape = self.config.get("data.shape")
        return tuple(shape) if isinstance(shape, list) else ()

    @property
    def patch(self) -> tuple[int, ...]:
        return tuple(self.config["train.patch_shape"])


def defining(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a flat config that affect weights or samples."""
    return {
        name: value
        for name, value in fields.items()
        if name not in _ASIDE and not name.startswith("data.phantom_")
    }


def open_run(path: Path) -> RunFolder:
    """Reads a run folder; raises InputError that names a missing or damaged file."""
    if not path.is_dir():
        raise InputError(f"{path}: no such run folder")
    table = path / "cases.csv"
    if not table.exists():
        raise InputError(
            f"{path}: has no cases.csv; evaluate it first: python -m unc_jax.main "
            f"--workdir {path} --stage evaluate"
        )
    config = read_fields(path)
    _check_config(config, path / "config.json")
    evaluation, voxels, preparation, features = (
        read_if_there(path / f"{name}.json")
        for name in ("evaluation", "voxels", "preparation", "features")
    )
    seeds, members = (evaluation or {}).get("seeds"), config.get("evaluate.members")
    if members and not (isinstance(seeds, list) and len(seeds) == len(members)):
        raise InputError(
            f"{path / 'evaluation.json'}: does not state the seeds of the members; "
            "evaluate the ensemble again"
        )
    rows = cases_table.read_rows(table, EVALUATION_COLUMNS)
    return RunFolder(path, config, rows, evaluation, voxels, preparation, features)


def read_fields(path: Path) -> dict[str, Any]:
    """Returns the flat config of config.json, with evaluate.* from evaluation.json.

    Checkpoints in the run folder have precedence over train.checkpoints, because the
    folder may have been copied from another machine.
    """
    stored = files.read_object(path / "config.json")
    check_format(stored, path / "config.json")
    fields = upgrade(stored)
    settings = (read_if_there(path / "evaluation.json") or {}).get("settings", {})
    if isinstance(settings, dict):
        fields |= {k: v for k, v in settings.items() if k.startswith("evaluate.")}
    if (path / "checkpoints").is_dir():
        fields["train.checkpoints"] = ""
    return fields


def read_config(path: Path) -> Config:
    """Reads the config of a run, the fields of `read_fields` over the defaults."""
    return from_flat(read_fields(path), path / "config.json")


def evaluated_steps(path: Path) -> list[int]:
    """Returns the steps of the checkpoints that made the rows; [] if unknown."""
    steps = (read_if_there(path / "evaluation.json") or {}).get("steps", [])
    if not isinstance(steps, list) or not all(isinstance(one, int) for one in steps):
        raise InputError(
            f"{path / 'evaluation.json'}: steps are {steps!r}, not whole numbers"
        )
    return steps


def with_empty_cases(rows: list[Row], policy: str) -> list[Row]:
    """Applies a policy to Dice and measures that empty masks leave undefined.

    "exclude" returns the rows unchanged: the Dice of two empty masks and measures over
    the voxels of an empty mask are undefined, and such cases are left out. "zero" sets
    them to 0 in every evaluated case, as some toolboxes do. The Dice is 0 under both
    policies when one mask is empty. Failed cases stay undefined.
    """
    if policy == "exclude":
        return rows
    names = ("dice", *MEASURES)
    return [
        {**row, **{name: row[name] if row[name] is not None else 0.0 for name in names}}
        if row["status"] == OK
        else row
        for row in rows
    ]


def _check_config(config: dict[str, Any], path: Path) -> None:
    missing = [name for name in _REQUIRED if name not in config]
    if missing:
        raise InputError(f"{path}: has no {', '.join(missing)}")
    if config["data.target"] not in TARGETS:
        raise InputError(
            f"{path}: data.target is {config['data.target']!r}, "
            f"not one of {', '.join(TARGETS)}"
        )
    patch, seed = config["train.patch_shape"], config["seed"]
    whole = isinstance(patch, list) and all(isinstance(n, int) for n in patch)
    if not whole or len(patch) != 3 or not isinstance(seed, int):
        raise InputError(
            f"{path}: train.patch_shape is {patch!r}, seed {seed!r}; "
            "they must be three numbers of voxels and a whole number"
        )
    fold, folds = config["data.fold"], config["data.folds"]
    if not isinstance(fold, int) or not isinstance(folds, int) or fold >= folds:
        raise InputError(
            f"{path}: data.fold is {fold!r} of data.folds {folds!r}; they must be "
            "whole numbers, the first below the second"
        )


def read_if_there(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object, None without the file; InputError names a broken one."""
    return files.read_object(path) if path.exists() else None
