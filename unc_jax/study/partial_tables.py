"""Rows of an evaluation in progress, kept by one process or by several.

A process on its own keeps cases.csv up to date. Of several each keeps its own rows in
cases.part-N.csv; at the end, or when the next evaluation begins (of however many
processes), they are merged into cases.csv and removed.
"""

import json
from collections.abc import Iterable
from pathlib import Path

from unc_jax import runtime
from unc_jax.data import files
from unc_jax.study import cases_table
from unc_jax.study.cases_table import EVALUATION_COLUMNS, OK, Row

_TABLE, _STAMP, _PARTS = "cases.csv", "evaluation.json", "cases.part-*.csv"

Rows = dict[str, Row]  # by case


def open_rows(
    directory: Path, fingerprint: str, cohort: str, order: Iterable[str]
) -> Rows:
    """Returns the rows made under `fingerprint`, on all processes; removes others.

    cohort: the fingerprint of the cohort, noted for readers. order: all cases.
    """
    rows: Rows = {}
    if runtime.is_main():
        rows = _open(directory, fingerprint, cohort)
        parts = sorted(directory.glob(_PARTS))
        for row in (row for part in parts for row in _read(part)):
            known = rows.get(str(row["case"]))
            if known is None or known["status"] != OK:
                rows[str(row["case"])] = row
        if parts:
            _write(directory / _TABLE, rows, order)
        for part in parts:
            part.unlink()
    return runtime.broadcast(rows)


def keep(directory: Path, rows: Rows, own: Rows, order: Iterable[str]) -> None:
    """Writes all rows, or of several processes the own ones of this process."""
    if runtime.process_count() == 1:
        _write(directory / _TABLE, {**rows, **own}, order)
    else:
        _write(_own_part(directory), own, order)


def join_rows(directory: Path, rows: Rows, own: Rows, order: Iterable[str]) -> Rows:
    """Returns all rows once every process has finished, and writes cases.csv."""
    if runtime.process_count() == 1:
        return {**rows, **own}
    # By way of the runtime: a shared folder may show new files late.
    for shared in runtime.all_gather(own):
        rows = {**rows, **shared}
    if runtime.is_main():
        _write(directory / _TABLE, rows, order)
    runtime.barrier()
    _own_part(directory).unlink(missing_ok=True)
    return rows


def _open(directory: Path, fingerprint: str, cohort: str) -> Rows:
    table, stamp = directory / _TABLE, directory / _STAMP
    try:
        stored = json.loads(stamp.read_text(encoding="utf-8"))["fingerprint"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        stored = None
    if stored != fingerprint:
        # In this order a kill in between can only lose rows, never relabel old ones.
        for path in (table, *directory.glob(_PARTS)):
            path.unlink(missing_ok=True)
        files.write_json(stamp, {"fingerprint": fingerprint, "cohort": cohort})
    return {str(row["case"]): row for row in _read(table)} if table.exists() else {}


def _read(path: Path) -> list[Row]:
    rows = cases_table.read_rows(path, EVALUATION_COLUMNS)
    # Rows without a measure that was added since are made again.
    return rows if cases_table.has_all_columns(path, EVALUATION_COLUMNS) else []


def _write(path: Path, rows: Rows, order: Iterable[str]) -> None:
    ordered = [rows[case] for case in order if case in rows]
    cases_table.write_rows(path, ordered, EVALUATION_COLUMNS)


def _own_part(directory: Path) -> Path:
    return directory / _PARTS.replace("*", str(runtime.process_index()))
