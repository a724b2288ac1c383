"""What evaluation leaves behind: a row of cases.csv and one slice per case.

`cases.csv` has one row per case under the header `COLUMNS`. A number that is undefined
is an empty field (None in a row), never 0. Floats are written so that reading gives
them back bitwise.
"""

import csv
import io
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.uncertainty.measures import MEASURES

SPLITS = ("train", "validation", "test")
COLUMNS = (
    *("case", "split", "n_samples", "dice"),
    *MEASURES,
    *("volume_ml", "volume_sd_ml", "reference_ml", "status"),
    # 5th and 95th percentile of the sample volumes; seconds of segmentation.
    *("volume_low_ml", "volume_high_ml", "seconds"),
)
OK = "ok"
_TEXT = ("case", "split", "status")
_WHOLE = ("n_samples",)

Row = dict[str, str | int | float | None]


class Panel(NamedTuple):
    """One axial slice of a case, what Figure 1 is drawn from; arrays are (x, y)."""

    image: np.ndarray  # float16, as the network saw it
    reference: np.ndarray  # bool
    prediction: np.ndarray  # bool, mean probability >= 0.5
    uncertainty: np.ndarray  # float16, nats
    spacing_mm: np.ndarray  # (2,), of x and y
    z: int


def new_row(**values: str | int | float | None) -> Row:
    """A row of all `COLUMNS`; None where no value or NaN or infinity is given."""
    unknown = set(values) - set(COLUMNS)
    if unknown:
        raise KeyError(f"no such column: {sorted(unknown)}")
    row: Row = dict.fromkeys(COLUMNS)
    for name, value in values.items():
        defined = isinstance(value, str) or (value is not None and math.isfinite(value))
        row[name] = value if defined else None
    return row


def write_rows(path: Path, rows: list[Row]) -> None:
    """Writes cases.csv whole, atomically."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _to_field(row[name]) for name in COLUMNS})
    files.write_text(path, text.getvalue())


def read_rows(path: Path) -> list[Row]:
    """Rows of a cases.csv; raises InputError naming file and line if it is none."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = set(COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise InputError(
                f"{path}: no column {', '.join(sorted(missing))}; this is no table of "
                "an evaluation, delete it and evaluate again"
            )
        return [_from_fields(fields, path, reader.line_num) for fields in reader]


def column(rows: list[Row], name: str, split: str | None = None) -> np.ndarray:
    """One numeric column, float64 (cases,), of one split or all; undefined is NaN."""
    values = [row[name] for row in rows if split in (None, row["split"])]
    return np.array([math.nan if v is None else float(v) for v in values])


def write_panel(path: Path, panel: Panel) -> None:
    """Writes one panel as compressed .npz, atomically."""
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **panel._asdict())


def read_panel(path: Path) -> Panel:
    """Reads what `write_panel` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in Panel._fields}
    return Panel(**arrays)._replace(z=int(arrays["z"]))


def _to_field(value: str | int | float | None) -> str:
    # repr of a Python float is the shortest text that reads back as the same float.
    if value is None:
        return ""
    # NumPy's own scalars would show their type.
    return value if isinstance(value, str) else repr(np.asarray(value).item())


def _from_field(name: str, field: str | None) -> str | int | float | None:
    if field is None:
        raise TypeError("a line that ends early")
    if name in _TEXT:
        return field
    if field == "":
        return None
    return int(field) if name in _WHOLE else float(field)


def _from_fields(fields: dict[str, str], path: Path, line: int) -> Row:
    row: Row = {}
    for name in COLUMNS:
        field = fields[name]
        try:
            row[name] = _from_field(name, field)
        except (TypeError, ValueError):
            raise InputError(
                f"{path}, line {line}: {name} is {field!r}; delete the line and "
                "evaluate again"
            ) from None
    return row
