"""Cases with a known Dice, by which the quality of others is predicted."""

import csv
from pathlib import Path

from unc_jax.errors import InputError
from unc_jax.review import quality, worklist
from unc_jax.review.worklist import Row
from unc_jax.study import records


def read_calibration(path: Path) -> list[Row]:
    """Rows with a known Dice, of a run's cases.csv or of one of this program."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; name a cases.csv") from None
    read = records.read_rows if "split" in header else worklist.read_rows
    rows = [row for row in read(path) if row["dice"] is not None]
    if not rows:
        raise InputError(f"{path}: no case has a Dice; score with --references first")
    return rows


def distributions(known: list[Row]) -> dict[str, list[float]]:
    """Values of each measure, of the validation cases where a split is known."""
    validation = [row for row in known if row.get("split") == "validation"] or known
    return {
        measure: [float(v) for row in validation if (v := row[measure]) is not None]
        for measure in records.MEASURES
    }


class Calibration:
    """Predicts the Dice of cases from those of `known`, rows with a Dice.

    A measure that no known case has (masks have no U_labelled) is left out for all.
    Raises InputError for too few cases.
    """

    def __init__(self, known: list[Row]) -> None:
        self._left_out = dict.fromkeys(
            (name for name in quality.SIGNS if all(row[name] is None for row in known)),
            # A constant takes every case to the same rank.
            0.0,
        )
        self._quality = quality.fit([{**row, **self._left_out} for row in known])

    def apply(self, row: Row, level: float) -> Row:
        """The row with predicted Dice and lower bound, if it has a segmentation."""
        if not worklist.is_usable(row):
            return row
        estimate = quality.predict(self._quality, {**row, **self._left_out}, level)
        predicted = {"predicted_dice": estimate.predicted, "dice_lower": estimate.lower}
        return worklist.new_row(**{**row, **predicted})

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
