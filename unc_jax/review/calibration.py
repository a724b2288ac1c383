"""Cases with a known Dice, by which the quality of others is predicted."""

import csv
from pathlib import Path

from unc_jax.errors import InputError
from unc_jax.review import worklist
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
