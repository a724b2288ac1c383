"""The table of reviewed cases: what was measured, whether a human should look, and why.

Where `study.records` holds cases whose reference is known, a work list holds cases of
a user, most of them without one. Undefined numbers are empty fields.
"""

import csv
import io
import math
from pathlib import Path

import numpy as np

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.uncertainty.measures import MEASURES

COLUMNS = (
    *("case", "status", "flag", "reason", "predicted_dice", "dice_lower"),
    *("n_samples", *MEASURES),
    *("volume_ml", "volume_sd_ml", "volume_low_ml", "volume_high_ml"),
    *("unlike", "warnings", "dice", "reference_ml", "seconds", "input"),
)
OK, EMPTY, NO_LIVER = "ok", "empty", "no_liver"
FAILED = "failed: "  # and the reason
_TEXT = ("case", "status", "flag", "reason", "unlike", "warnings", "input")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would execute

Row = dict[str, str | int | float | None]


def new_row(**values: str | int | float | None) -> Row:
    """A row of all `COLUMNS`; text defaults to "", numbers to None, as do NaN and inf.

    Raises KeyError for a column that does not exist.
    """
    unknown = set(values) - set(COLUMNS)
    if unknown:
        raise KeyError(f"no such column: {sorted(unknown)}")
    row: Row = {name: "" if name in _TEXT else None for name in COLUMNS}
    for name, value in values.items():
        undefined = isinstance(value, float) and not math.isfinite(value)
        row[name] = None if undefined else value
    return row


def is_usable(row: Row) -> bool:
    """Whether the case was segmented and something was found."""
    return row["status"] == OK


def order(rows: list[Row]) -> list[Row]:
    """Worst first: without a segmentation, flagged by lower bound, then the rest.

    What has no number comes before what has one; ties stay in their order.
    """

    def rank(row: Row) -> tuple:
        bounds = [row["dice_lower"], row["predicted_dice"], row["d_pw"]]
        known = [(b is not None, 0.0 if b is None else float(b)) for b in bounds]
        return is_usable(row), row["flag"] != "yes", *known

    return sorted(rows, key=rank)


def write_rows(path: Path, rows: list[Row]) -> None:
    """Writes the table whole, atomically; no field can act as a spreadsheet formula."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _to_field(row[name]) for name in COLUMNS})
    files.write_text(path, text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """Reads what `write_rows` wrote; InputError names the file and the line."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            missing = set(COLUMNS) - set(reader.fieldnames or ())
            if missing:
                raise InputError(
                    f"{path}: no column {', '.join(sorted(missing))}; this is no work "
                    "list of unc_jax"
                )
            return [_from_fields(fields, path, reader.line_num) for fields in reader]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); name a cases.csv"
        ) from None


def _to_field(value: str | int | float | None) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return repr(np.asarray(value).item())  # NumPy's own scalars would show their type


def _from_fields(fields: dict[str, str], path: Path, line: int) -> Row:
    row: Row = {}
    for name in COLUMNS:
        field = fields[name]
        try:
            row[name] = _from_field(name, field)
        except (TypeError, ValueError):
            raise InputError(
                f"{path}, line {line}: {name} is {field!r}, which is no number; mend "
                "or delete the line"
            ) from None
    return row


def _from_field(name: str, field: str | None) -> str | int | float | None:
    if field is None:
        raise TypeError("a line that ends early")
    if name in _TEXT:
        guarded = field[:1] == "'" and field[1:].startswith(_FORMULA)
        return field[1:] if guarded else field
    if field == "":
        return None
    return int(field) if name == "n_samples" else float(field)
