"""Tables of cases, cases.csv: one row per case, or per case and structure.

`case_columns` defines the columns. An undefined number is None in a row and an empty
field in the file, never 0. Floats are written so that reading restores them bit for
bit.
"""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import numpy as np

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.study.case_columns import OPTIONAL, TEXT, WHOLE

SPLITS = ("train", "validation", "test")
ENCODING = "utf-8-sig"  # also reads the byte order mark that spreadsheets write
# Spreadsheets execute fields that start with these; the last four are the full-width
# forms of the first four.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")

# Values of "status".
OK, EMPTY, NO_LIVER = "ok", "empty", "no_liver"
ONE_SAMPLE = "one_sample"  # no spread, so no measures
FAILED = "failed: "  # and the reason

IDENTICAL = "identical samples"  # in "unlike": copies of a file, or no dropout
LEAKED = "leaked"  # in "unlike": the network of a sample was trained on the case
# In "unlike": what keeps a case from being compared with the calibration cases.
OTHER_COUNT, NO_MEASURE = "number of samples", "missing measures"

Row = dict[str, str | int | float | None]


def new_row(columns: Sequence[str], **values: str | int | float | None) -> Row:
    """Returns a row of all `columns`; text defaults to "", numbers to None.

    NaN and infinity become None. Raises KeyError for a column that does not exist.
    """
    unknown = set(values) - set(columns)
    if unknown:
        raise KeyError(f"no such column: {sorted(unknown)}")
    row: Row = {name: "" if name in TEXT else None for name in columns}
    for name, value in values.items():
        if isinstance(value, str) or (value is not None and math.isfinite(value)):
            row[name] = value
    return row


def with_delivered_dice(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows with the Dice of the delivered masks (`dice_scan`) as `dice`.

    If a row with a Dice has no `dice_scan`, all rows are returned unchanged.
    """
    known = [row for row in rows if row["dice"] is not None]
    if any(row.get("dice_scan") is None for row in known):
        return list(rows)
    return [{**row, "dice": row.get("dice_scan")} for row in rows]


def with_warnings(row: Row, *more: str) -> Row:
    """Returns a review's row with more warnings after its own; "" adds nothing."""
    return {**row, "warnings": "; ".join(filter(None, [str(row["warnings"]), *more]))}


def leaked(row: Row, reason: str) -> Row:
    """Returns a review's row marked as of a case that a network was trained on."""
    entries = [*unlike(row), LEAKED]
    return {**with_warnings(row, reason), "unlike": ", ".join(dict.fromkeys(entries))}


def unlike(row: Row) -> list[str]:
    """Returns the entries of a review's column `unlike`; [] in other tables."""
    return [one for one in str(row.get("unlike") or "").split(", ") if one]


def is_failed(row: Row) -> bool:
    """Tells whether a case failed; its status gives the reason."""
    return str(row["status"]).startswith(FAILED)


def is_usable(row: Row) -> bool:
    """Tells whether the case has a mask that is not empty, and two samples or more.

    An evaluation has no status of its own for an empty mask.
    """
    return row["status"] == OK and row["volume_ml"] != 0


def write_rows(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Writes the table atomically; fields cannot act as spreadsheet formulas."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: to_field(row[name]) for name in columns})
    files.write_text(path, text.getvalue())


def opened(path: Path) -> TextIO:
    """Opens a table to read; InputError for a pipe or a device."""
    return open(files.regular(path), encoding=ENCODING, newline="")


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Reads a table of `write_rows`, which may have been edited.

    Columns that older tables lack (`OPTIONAL`) are None or "" in every row. Raises
    InputError, naming file and line, for another separator, a second row of a case,
    missing or additional fields, values that are not finite numbers, and a Dice or
    D_pw outside 0 ... 1.
    """
    try:
        with opened(path) as file:
            reader = csv.DictReader(file)
            if any(";" in name for name in reader.fieldnames or ()):
                raise InputError(
                    f"{path}, line 1: separated by semicolons; save it with commas"
                )
            absent = [one for one in columns if one not in (reader.fieldnames or ())]
            missing = [one for one in absent if one not in OPTIONAL]
            if missing:
                raise InputError(
                    f"{path}: no column {', '.join(missing)}; this is not a table of "
                    "this version of unc_jax, delete it and run again"
                )
            rows: dict[tuple, Row] = {}
            for fields in reader:
                if not any(fields.values()):  # an empty line of a spreadsheet
                    continue
                place = f"{path}, line {reader.line_num}"
                row = _from_fields(dict.fromkeys(absent, "") | fields, columns, place)
                key = str(row["case"]).strip(), row["structure"]
                if key in rows:
                    raise InputError(f"{place}: case {row['case']} has several rows")
                rows[key] = row
            return [*rows.values()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"{path}: cannot be read ({cause}); name a cases.csv"
        ) from None


def has_all_columns(path: Path, columns: Sequence[str]) -> bool:
    """Tells whether a table has every column, including those that older ones lack."""
    with opened(path) as file:
        return set(columns) <= set(next(csv.reader(file), []))


def column(rows: Sequence[Row], name: str, split: str | None = None) -> np.ndarray:
    """Returns one numeric column, float64 (cases,), NaN where undefined.

    split: of these cases only; None: of all.
    """
    values = [row[name] for row in rows if split is None or row["split"] == split]
    return np.array([math.nan if v is None else float(v) for v in values])


def to_field(value: str | int | float | None) -> str:
    """Formats a value as a CSV field that a spreadsheet does not execute."""
    if value is None:
        return ""
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    # repr of a Python float is the shortest text that reads back as the same float;
    # NumPy's own scalars would show their type.
    return repr(np.asarray(value).item())


def _from_fields(fields: dict[str, str], columns: Sequence[str], place: str) -> Row:
    row: Row = {}
    if None in fields:
        raise InputError(
            f"{place}: more fields than columns; correct or delete the line"
        )
    for name in columns:
        try:
            row[name] = _from_field(name, fields[name])
        except (TypeError, ValueError):
            raise InputError(
                f"{place}: {name} is {fields[name]!r}, not a number; correct or "
                "delete the line"
            ) from None
    for name in ("dice", "d_pw"):
        value = row.get(name)
        if value is not None and not 0 <= float(value) <= 1:
            raise InputError(f"{place}: {name} is {value:g}, must lie in 0 ... 1")
    return row


def _from_field(name: str, field: str | None) -> str | int | float | None:
    if field is None:
        raise TypeError("a line that ends early")
    if name in TEXT:
        guarded = field[:1] == "'" and field[1:].startswith(_FORMULA)
        return field[1:] if guarded else field
    if field == "":
        return None
    if name in WHOLE:
        return int(field)
    number = float(field)
    if not math.isfinite(number):
        raise ValueError
    return number
