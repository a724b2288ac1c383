"""Rows of an evaluation in progress, stored by one process or by several.

Each process stores its rows in cases.part-N.csv. At the end these files are merged into
cases.csv and removed, so that cases.csv always belongs to a finished evaluation.
evaluation.json records the settings, data and weights that the rows were made with.
"""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from unc_jax import runtime
from unc_jax.config import differences
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.cases_table import OK, Row

_TABLE, _RECORD, _PARTS = "cases.csv", "evaluation.json", "cases.part-*.csv"
# Files of single cases, found by name: they must not be taken for those of new rows.
_OF_CASES = ("panels", "voxels", "predictions")
# Files made from all rows; they are written again when new rows are complete.
_OF_ROWS = (
    *("voxels.json", "preparation.json", "quality.json", "summary.json", "table.md"),
    *("features.json", "review.json", "report.html"),
    *("figures/figure1.png", "figures/figure2.png"),
)
# Fields of evaluate.* that do not affect the rows.
WITHOUT_EFFECT = ("evaluate.chunk", "evaluate.bootstrap", "evaluate.window_batch")

Rows = dict[str, Row]  # by case


def check_rows(directory: Path, made_with: dict[str, Any]) -> None:
    """Raises InputError for existing rows that were made with something else.

    made_with: the content of evaluation.json: "cohort" (its fingerprint), "settings"
    (flat fields), "steps", "checkpoints" (digests) and "precision". If one side has no
    checkpoints, they are not compared. The precision is compared if cases are left to
    do: finished rows stay as they are on any device.
    """
    if not has_rows(directory):
        return
    try:
        stored = _record(directory)
        changed = _differences(stored, made_with)
        if _is_unfinished(directory):
            changed += differences(_precision(stored), _precision(made_with))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        changed = [f"{_RECORD} does not say by what"]
    if changed:
        raise InputError(
            f"the rows in {directory} were made with something else "
            f"({'; '.join(changed)}); choose another folder, or replace them by "
            "--replace-rows"
        )


def open_rows(
    directory: Path,
    made_with: dict[str, Any],
    order: Iterable[str],
    *,
    replace: bool = False,
) -> Rows:
    """Returns the existing rows, made with the same settings, on all processes.

    order: all cases, in the order of the table. Raises InputError for other rows
    (`check_rows`); with `replace` these and the files made from them are removed.
    """
    rows: Rows = {}
    with runtime.shared_errors():
        if runtime.is_main():
            rows = _open(directory, made_with, replace=replace)
            parts = sorted(directory.glob(_PARTS))
            for row in (row for part in parts for row in _read(part)):
                known = rows.get(str(row["case"]))
                if known is None or known["status"] != OK:
                    rows[str(row["case"])] = row
            if parts:
                _write(_own_part(directory), rows, order)
            for part in set(parts) - {_own_part(directory)}:
                part.unlink()
    return runtime.broadcast(rows)


def keep(directory: Path, rows: Rows, own: Rows, order: Iterable[str]) -> None:
    """Writes this process's rows; the main process adds the rows known before."""
    kept = {**rows, **own} if runtime.is_main() else own
    _write(_own_part(directory), kept, order)


def join_rows(directory: Path, rows: Rows, own: Rows, order: Iterable[str]) -> Rows:
    """Waits for all processes, writes cases.csv and returns all rows."""
    # Gathered by JAX: a shared file system may show new files late.
    for shared in runtime.all_gather(own):
        rows = {**rows, **shared}
    part = _own_part(directory)
    if runtime.is_main() and (part.exists() or not (directory / _TABLE).exists()):
        _write(directory / _TABLE, rows, order)
    runtime.barrier()
    part.unlink(missing_ok=True)
    return rows


def _record(directory: Path) -> Any:
    try:
        return files.read_json(directory / _RECORD)
    except InputError:
        return None


def has_rows(directory: Path) -> bool:
    """Returns whether an evaluation left rows in a folder, finished or not."""
    return (directory / _TABLE).exists() or any(directory.glob(_PARTS))


def _is_unfinished(directory: Path) -> bool:
    """Tells whether the next command adds rows: of cases that are missing or failed."""
    if any(directory.glob(_PARTS)):
        return True
    return any(row["status"] != OK for row in _read(directory / _TABLE))


def _open(directory: Path, made_with: dict[str, Any], *, replace: bool) -> Rows:
    table = directory / _TABLE
    try:
        check_rows(directory, made_with)
    except InputError:
        if not replace:
            raise
        # Rows first: a kill in between must not leave old rows under a new record.
        for path in (table, *directory.glob(_PARTS)):
            path.unlink(missing_ok=True)
        for name in _OF_CASES:
            shutil.rmtree(directory / name, ignore_errors=True)
        for name in _OF_ROWS:
            (directory / name).unlink(missing_ok=True)
    rows = _read(table) if table.exists() else []
    if rows or any(directory.glob(_PARTS)):
        rest = {name: value for name, value in made_with.items() if name != "precision"}
        made_with = {**rest, **_precision(_record(directory))}
    if _record(directory) != made_with:
        files.write_json(directory / _RECORD, made_with)
    return {str(row["case"]): row for row in rows}


def _differences(stored: dict[str, Any], made_with: dict[str, Any]) -> list[str]:
    if "settings" not in stored:
        return ["by an earlier version, which did not say under what settings"]
    weights = made_with["checkpoints"] and stored.get("checkpoints")
    if weights and weights != made_with["checkpoints"]:
        return [f"weights: {_weights(stored)} -> {_weights(made_with)}"]
    return differences(
        {**stored["settings"], "cohort": stored["cohort"]},
        {**made_with["settings"], "cohort": made_with["cohort"]},
    )


def _precision(record: dict[str, Any]) -> dict[str, Any]:
    return {"precision": record["precision"]} if "precision" in record else {}


def _weights(record: dict[str, Any]) -> str:
    pairs = zip(record["steps"], record["checkpoints"], strict=True)
    return ", ".join(f"step {step} ({digest[:8]})" for step, digest in pairs)


def _read(path: Path) -> list[Row]:
    rows = cases_table.read_rows(path, EVALUATION_COLUMNS)
    # Rows without a measure that was added since are made again.
    return rows if cases_table.has_all_columns(path, EVALUATION_COLUMNS) else []


def _write(path: Path, rows: Rows, order: Iterable[str]) -> None:
    ordered = [rows[case] for case in order if case in rows]
    cases_table.write_rows(path, ordered, EVALUATION_COLUMNS)


def _own_part(directory: Path) -> Path:
    return directory / _PARTS.replace("*", str(runtime.process_index()))
