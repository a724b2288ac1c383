"""Rows of cases that are finished, whoever of several processes finished them.

A process on its own keeps cases.csv up to date. Of several each keeps its own rows in
cases.part-N.csv; at the end, or when the next run begins (of however many processes),
they are merged into cases.csv and removed.
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
    """Rows made under `fingerprint`, the same on all processes; others are removed.

    cohort: the fingerprint of the cohort, noted for readers. order: all cases.
    """
    rows: Rows = {}
    if runtime.is_main():
        rows = _stored(directory, fingerprint, cohort)
        _merge_parts(directory, rows, order)
    return runtime.broadcast(rows)


def keep(directory: Path, rows: Rows, own: Rows, order: Iterable[str]) -> None:
    """Writes what this process has to: all rows, or of several processes its own."""
    if runtime.process_count() == 1:
        cases_table.write_rows(
            directory / _TABLE, _ordered({**rows, **own}, order), EVALUATION_COLUMNS
        )
    else:
        path = directory / _PARTS.replace("*", str(runtime.process_index()))
        cases_table.write_rows(path, _ordered(own, order), EVALUATION_COLUMNS)


def join_rows(directory: Path, rows: Rows, own: Rows, order: Iterable[str]) -> Rows:
    """All rows, once every process has finished its own; cases.csv then holds them."""
    order = list(order)
    if runtime.process_count() == 1:
        return {**rows, **own}
    # By way of the runtime: a shared folder may show new files late.
    for shared in runtime.all_gather(own):
        rows = {**rows, **shared}
    if runtime.is_main():
        cases_table.write_rows(
            directory / _TABLE, _ordered(rows, order), EVALUATION_COLUMNS
        )
    runtime.barrier()
    path = directory / _PARTS.replace("*", str(runtime.process_index()))
    path.unlink(missing_ok=True)
    return rows


def _stored(directory: Path, fingerprint: str, cohort: str) -> Rows:
    table, stamp = directory / _TABLE, directory / _STAMP
    if _stored_fingerprint(stamp) != fingerprint:
        # In this order a kill in between can only lose rows, never relabel old ones.
        for path in (table, *directory.glob(_PARTS)):
            path.unlink(missing_ok=True)
        files.write_json(stamp, {"fingerprint": fingerprint, "cohort": cohort})
    if not table.exists():
        return {}
    return {
        str(row["case"]): row
        for row in cases_table.read_rows(table, EVALUATION_COLUMNS)
    }


def _stored_fingerprint(path: Path) -> str | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["fingerprint"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def _merge_parts(directory: Path, rows: Rows, order: Iterable[str]) -> None:
    """Into `rows` and cases.csv, what processes that are no more left behind."""
    parts = sorted(directory.glob(_PARTS))
    for row in (
        row for part in parts for row in cases_table.read_rows(part, EVALUATION_COLUMNS)
    ):
        known = rows.get(str(row["case"]))
        if known is None or known["status"] != OK:
            rows[str(row["case"])] = row
    if parts:
        cases_table.write_rows(
            directory / _TABLE, _ordered(rows, order), EVALUATION_COLUMNS
        )
    for part in parts:
        part.unlink()


def _ordered(rows: Rows, order: Iterable[str]) -> list[Row]:
    return [rows[case] for case in order if case in rows]
