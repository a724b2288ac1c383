"""A run folder to carry away: what `predict` needs, and nothing to execute.

RUN/config.json (by training), checkpoints/, and from evaluation preparation.json,
quality.json (predicted Dice) and review.json (what reviewing would have saved).
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging

from unc_jax.config import read_config
from unc_jax.data import files
from unc_jax.data.cohort import Cohort
from unc_jax.errors import InputError
from unc_jax.fields import Config
from unc_jax.review import prepare_scan, quality, rule
from unc_jax.review.prepare_scan import Preparation, Range
from unc_jax.review.quality import SIGNS, Quality
from unc_jax.study import cases_table
from unc_jax.study.cases_table import Row

# What review.json reports on the test cases.
TARGET_DICE, REVIEW_FRACTION, LEVEL = 0.9, 0.1, 0.9


class Run(NamedTuple):
    """A trained and evaluated run; `quality` is None where it had too few cases."""

    path: Path
    config: Config
    preparation: Preparation
    quality: Quality | None
    rows: list[Row]


def store(workdir: Path, config: Config, cohort: Cohort, rows: list[Row]) -> None:
    """Writes preparation.json, quality.json and review.json of an evaluated run.

    Without enough validation cases there is no quality.json; a warning says so.
    """
    described = prepare_scan.describe(config, cohort, _ranges(rows))
    files.write_json(workdir / "preparation.json", described)
    held_out = sum(row["split"] == "validation" for row in rows)
    # Too few validation cases for the level: training cases help out, each predicted
    # by a map that does not know it.
    method = "split" if quality.greatest_level(held_out) >= LEVEL else "cross"
    try:
        found = quality.fit(rows, method=method)
    except InputError as error:
        logging.warning("no predicted quality: %s", error)
        for name in ("quality.json", "review.json"):
            (workdir / name).unlink(missing_ok=True)
        return
    files.write_json(workdir / "quality.json", quality.to_json(found))
    files.write_json(workdir / "review.json", _appraisals(rows, found))


def load(path: Path) -> Run:
    """Reads a run folder. Raises InputError for one that is incomplete or broken."""
    described = prepare_scan.from_json(
        _read(path / "preparation.json", "run --stage evaluate first"),
        str(path / "preparation.json"),
    )
    source = path / "quality.json"
    found = (
        quality.from_json(_read(source, ""), str(source)) if source.exists() else None
    )
    return Run(
        path,
        read_config(path / "config.json"),
        described,
        found,
        cases_table.read_rows(path / "cases.csv"),
    )


def _read(path: Path, hint: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"no {path}: {hint}") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None


def _ranges(rows: list[Row]) -> dict[str, Range]:
    """Of the three measures and the volume, over training and validation cases."""
    known = [row for row in rows if row["split"] != "test"]
    ranges = {}
    for name in (*SIGNS, "volume_ml"):
        values = cases_table.column(known, name)
        values = values[~np.isnan(values)]
        if len(values):
            ranges[name] = float(values.min()), float(values.max())
    return ranges


def _appraisals(rows: list[Row], found: Quality) -> dict[str, Any]:
    """Both rules on the test cases; the fraction's threshold is of validation cases."""
    held_out = {name: _estimates(rows, name, found) for name in ("validation", "test")}
    predicted, lower, dice = held_out["test"]
    edge = rule.threshold(held_out["validation"][0], REVIEW_FRACTION)
    return {
        "level": LEVEL,
        "method": found.method,
        "greatest_level": quality.greatest_level(len(found.residuals)),
        "target_dice": rule.appraise(dice, ~(lower >= TARGET_DICE), TARGET_DICE),
        "review_fraction": {
            "fraction": REVIEW_FRACTION,
            "threshold": edge if np.isfinite(edge) else None,
            **rule.appraise(dice, predicted <= edge, TARGET_DICE),
        },
    }


def _estimates(rows: list[Row], split: str, found: Quality) -> np.ndarray:
    """(3, cases): predicted Dice, lower bound, true Dice."""
    chosen = [row for row in rows if row["split"] == split and row["status"] == "ok"]
    estimates = [quality.predict(found, row, LEVEL) for row in chosen]
    dice = cases_table.column(chosen, "dice")
    return np.array(
        [[one.predicted for one in estimates], [one.lower for one in estimates], dice]
    ).reshape(3, len(chosen))
