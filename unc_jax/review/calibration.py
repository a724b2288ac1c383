"""Cases with a known Dice, by which the quality of others is predicted.

Evaluation stores in a run: quality.json (the map to predicted Dice) and review.json
(what reviewing by it would have saved on the test cases).
"""

import csv
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.review import quality, rule
from unc_jax.review.quality import Quality
from unc_jax.study import cases_table
from unc_jax.study.cases_table import EVALUATION_COLUMNS, OK, REVIEW_COLUMNS, Row
from unc_jax.study.run_folder import Run
from unc_jax.uncertainty.measures import MEASURES

# What review.json reports on the test cases.
TARGET_DICE, REVIEW_FRACTION, LEVEL = 0.9, 0.1, 0.9


def store_quality(workdir: Path, rows: list[Row]) -> None:
    """Writes RUN/quality.json and RUN/review.json from the rows of cases.csv.

    Without enough validation cases there are none; a warning says so.
    """
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


def quality_of(run: Run) -> Quality | None:
    """Returns the quality map of a run; None where it had too few cases."""
    if run.quality is None:
        return None
    return quality.from_json(run.quality, str(run.path / "quality.json"))


def read_calibration(path: Path) -> list[Row]:
    """Rows with a known Dice, of a run's cases.csv or of one of this program."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; name a cases.csv") from None
    columns = EVALUATION_COLUMNS if "split" in header else REVIEW_COLUMNS
    rows = cases_table.read_rows(path, columns)
    rows = [row for row in rows if row["dice"] is not None]
    if not rows:
        raise InputError(f"{path}: no case has a Dice; score with --references first")
    return rows


def distributions(known: list[Row]) -> dict[str, list[float]]:
    """Values of each measure, of the validation cases where a split is known."""
    validation = [row for row in known if row.get("split") == "validation"] or known
    return {
        measure: [float(v) for row in validation if (v := row[measure]) is not None]
        for measure in MEASURES
    }


def same_voxels(known: list[Row], rows: list[Row]) -> bool:
    """Whether both were measured on voxels of a like size, within a factor of 2.

    The paper's CV counts voxels, so it has another scale on another grid: that of the
    scan, for samples of other tools, instead of a run's prepared grid. True where a
    size cannot be told.
    """
    one, other = _voxel_ml(known), _voxel_ml(rows)
    return one is None or other is None or 0.5 <= one / other <= 2


def _voxel_ml(rows: list[Row]) -> float | None:
    """Median voxel, ml: CV is Var / mean of the volumes in voxels, sd and volume in ml
    beside it; None when no row has a spread."""
    sizes = []
    for row in rows:
        cv, sd, volume = (row[name] for name in ("cv", "volume_sd_ml", "volume_ml"))
        if cv and sd and volume:
            sizes.append(float(sd) ** 2 / (float(volume) * float(cv)))
    return statistics.median(sizes) if sizes else None


class Calibration:
    """Predicts the Dice of cases from those of `known`, rows with a Dice.

    A measure that no known case has, or none of the cases to predict (masks have no
    U_labelled), is left out for all; so is CV when the two were measured on voxels of
    another size. `left_out` says what, and why. Raises InputError for too few cases.
    """

    def __init__(self, known: list[Row], rows: list[Row]) -> None:
        self.left_out: dict[str, str] = {}
        for name in quality.SIGNS:
            for cases, whose in ((known, "with a known Dice"), (rows, "to predict")):
                if cases and all(row[name] is None for row in cases):
                    self.left_out[name] = f"no case {whose} has it"
        if not same_voxels(known, rows):
            self.left_out["cv"] = "it counts voxels, which are of another size there"
        # A constant takes every case to the same rank.
        self._constant = dict.fromkeys(self.left_out, 0.0)
        self._quality = quality.fit([{**row, **self._constant} for row in known])

    def apply(self, row: Row, level: float) -> Row:
        """The row with predicted Dice and lower bound, if it has a segmentation."""
        if not cases_table.is_usable(row):
            return row
        estimate = quality.predict(self._quality, {**row, **self._constant}, level)
        predicted = {"predicted_dice": estimate.predicted, "dice_lower": estimate.lower}
        return cases_table.new_row(REVIEW_COLUMNS, **{**row, **predicted})

    @property
    def support(self) -> str:
        """What the bounds rest on, one line."""
        n = len(self._quality.residuals)
        greatest = quality.greatest_level(n)
        bound = "" if self._quality.method == "split" else ", proved for 2 level - 1"
        return (
            f"{n} cases ({self._quality.method}{bound}); they support levels up to "
            f"{greatest:.3f}"
        )


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
    chosen = [row for row in rows if row["split"] == split and row["status"] == OK]
    estimates = [quality.predict(found, row, LEVEL) for row in chosen]
    dice = cases_table.column(chosen, "dice")
    return np.array(
        [[one.predicted for one in estimates], [one.lower for one in estimates], dice]
    ).reshape(3, len(chosen))
