"""Tables of cases, cases.csv: one row per case, or per case and structure.

An evaluation's table (`EVALUATION_COLUMNS`) has a reference for every case, a review's
table (`REVIEW_COLUMNS`) holds a user's cases, mostly without one. An undefined number
is None in a row and an empty field in the file, never 0. Floats are written so that
reading restores them bit for bit.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.study.distances import Distances, surface_distances
from unc_jax.study.metrics import volume_ml
from unc_jax.uncertainty.halves import HALF_COLUMNS
from unc_jax.uncertainty.measures import (
    MEASURES,
    PAPER_MEASURES,
    THRESHOLD,
    Measure,
    measure_all,
    standard_error,
)
from unc_jax.uncertainty.prediction import Prediction

SPLITS = ("train", "validation", "test")
# Tolerance of the surface Dice; the slices of most CT are thicker.
TOLERANCE_MM = 2.0
ENCODING = "utf-8-sig"  # also reads the byte order mark that spreadsheets write


class Column(NamedTuple):
    """A column computed from the samples of a case, in addition to the measures.

    Attributes:
      label: label in the report; "" leaves the number out of the report.
      unit: unit of the number, for the report.
      of: function of the prediction and the volume of a voxel in ml, to the number.
    """

    label: str
    unit: str
    of: Callable[[Prediction, float], float]


def _percentile(share: float) -> Callable[[Prediction, float], float]:
    return lambda one, voxel_ml: float(np.percentile(one.volumes, share)) * voxel_ml


def _luck(name: str, one: Measure) -> Column:
    """Returns the column of a measure's standard error.

    It has no label, because the report shows it next to the measure.
    """
    return Column("", one.unit, lambda prediction, _: standard_error(prediction, name))


# To add a column to both tables, add an entry; it follows the standard errors.
SAMPLE_COLUMNS = {
    "n_samples": Column("", "", lambda one, _: len(one.volumes)),
    "volume_ml": Column(
        "", "ml", lambda one, voxel_ml: volume_ml(one.mean >= THRESHOLD, voxel_ml)
    ),
    "volume_sd_ml": Column(
        "", "ml", lambda one, voxel_ml: float(one.volumes.std()) * voxel_ml
    ),
    "volume_low_ml": Column("", "ml", _percentile(5)),
    "volume_high_ml": Column("", "ml", _percentile(95)),
    **{
        f"{name}_se": _luck(name, one)
        for name, one in MEASURES.items()
        if one.of_subsets is not None
    },
}
# Columns of SAMPLE_COLUMNS with a fixed place in the tables.
_VOLUMES = ("volume_ml", "volume_sd_ml", "volume_low_ml", "volume_high_ml")
_FURTHER = tuple(
    name for name in SAMPLE_COLUMNS if name not in ("n_samples", *_VOLUMES)
)

EVALUATION_COLUMNS = (
    *("case", "split", "n_samples", "dice"),
    *MEASURES,
    *("volume_ml", "volume_sd_ml", "reference_ml", "status"),
    *("volume_low_ml", "volume_high_ml", "seconds"),  # of segmentation
    "dice_scan",  # of the delivered mask, on the scan's own grid
    *_FURTHER,
    *Distances._fields,  # of the delivered mask, on the scan's own grid
    "structure",  # "" for a single, unnamed structure
    *HALF_COLUMNS,
)
# Components of the reference, share of them found, components of the mask that match
# none, mean Dice over the reference's components.
LESION_COLUMNS = ("lesions", "lesion_sensitivity", "false_positives", "lesion_dice")
REVIEW_COLUMNS = (
    *("case", "structure", "status", "flag", "reason", "predicted_dice", "dice_lower"),
    *("n_samples", *MEASURES),
    *_VOLUMES,
    *("unlike", "warnings", "dice", "reference_ml", "seconds", "input"),
    *_FURTHER,
    "released",
    *Distances._fields,
    *LESION_COLUMNS,
    "uncertain_where",  # text: ml of high uncertainty, place of its largest part
)
# Columns that older tables may lack.
_OPTIONAL = (
    *set(MEASURES).difference(PAPER_MEASURES),
    *("dice_scan", *_FURTHER, "released", *Distances._fields, "structure"),
    *HALF_COLUMNS,
    *LESION_COLUMNS,
    "uncertain_where",
)
_TEXT = (
    *("case", "structure", "split", "status", "flag", "reason", "released"),
    *("unlike", "warnings", "input", "uncertain_where"),
)
_WHOLE = ("n_samples", "lesions", "false_positives")
# Spreadsheets execute fields that start with these; the last four are the full-width
# forms of the first four.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")

# Values of "status".
OK, EMPTY, NO_LIVER = "ok", "empty", "no_liver"
ONE_SAMPLE = "one_sample"  # no spread, so no measures
FAILED = "failed: "  # and the reason

IDENTICAL = "identical samples"  # in "unlike": copies of one file, or no dropout
LEAKED = "leaked"  # in "unlike": the network of a sample was trained on the case

Row = dict[str, str | int | float | None]


def new_row(columns: Sequence[str], **values: str | int | float | None) -> Row:
    """Returns a row of all `columns`; text defaults to "", numbers to None.

    NaN and infinity become None. Raises KeyError for a column that does not exist.
    """
    unknown = set(values) - set(columns)
    if unknown:
        raise KeyError(f"no such column: {sorted(unknown)}")
    row: Row = {name: "" if name in _TEXT else None for name in columns}
    for name, value in values.items():
        if isinstance(value, str) or (value is not None and math.isfinite(value)):
            row[name] = value
    return row


def measure(prediction: Prediction, voxel_ml: float) -> dict[str, float]:
    """Returns the numbers of a row that need no reference.

    voxel_ml: volume of one voxel. For a single sample only its volume is returned.
    """
    if len(prediction.volumes) == 1:
        volume = SAMPLE_COLUMNS["volume_ml"].of(prediction, voxel_ml)
        return {"n_samples": 1, "volume_ml": volume}
    numbers = {
        name: one.of(prediction, voxel_ml) for name, one in SAMPLE_COLUMNS.items()
    }
    return numbers | measure_all(prediction)


def measure_distances(
    mask: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> dict[str, float]:
    """Returns the distance columns of a row, for a delivered mask and its reference."""
    found = surface_distances(mask, reference, spacing_mm, tolerance_mm=TOLERANCE_MM)
    return found._asdict()


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


def is_usable(row: Row) -> bool:
    """Tells whether the case has a segmentation and two samples or more."""
    return row["status"] == OK


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

    Columns that older tables lack (`_OPTIONAL`) are None or "" in every row. Raises
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
            missing = [one for one in absent if one not in _OPTIONAL]
            if missing:
                raise InputError(
                    f"{path}: no column {', '.join(missing)}; this is not a table of "
                    "this version of unc_jax, delete it and run again"
                )
            rows: dict[tuple, Row] = {}
            for fields in reader:
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
    if name in _TEXT:
        guarded = field[:1] == "'" and field[1:].startswith(_FORMULA)
        return field[1:] if guarded else field
    if field == "":
        return None
    if name in _WHOLE:
        return int(field)
    number = float(field)
    if not math.isfinite(number):
        raise ValueError
    return number
