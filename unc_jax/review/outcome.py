"""Outcome of predict and score: the tables, run.json and the report of an output."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unc_jax import runtime
from unc_jax.cli import SOME_FAILED
from unc_jax.data import files
from unc_jax.data.split import natural_order
from unc_jax.errors import counted, printable
from unc_jax.review import (
    by_structure,
    component_rows,
    known_cases,
    own_files,
    report,
    rule,
)
from unc_jax.review.rule import Rule
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.cases_table import Row
from unc_jax.uncertainty.measures import MEASURES

UNFINISHED = "cases.unfinished.csv"
_SHOWN = 5  # cases that a message names


def write_unfinished(output: Path, rows: Sequence[Row]) -> None:
    """Writes the rows so far to OUTPUT/cases.unfinished.csv, worst first."""
    ordered = rule.order(list(rows))
    cases_table.write_rows(output / UNFINISHED, ordered, REVIEW_COLUMNS)


def finish(
    output: Path,
    rows: Sequence[Row],
    *,
    title: str,
    facts: Mapping[str, str],
    details: Mapping[str, Any],
    known: Sequence[Row],
    wanted: Rule,
    notes: Sequence[str],
    components: Sequence[Row] | None = None,
) -> None:
    """Writes OUTPUT/{run.json,report.html,cases.csv}; replaces the unfinished table.

    The part `own_files.of_tables` must have been begun and is finished. components:
    rows of components.csv, None writes none. run.json holds `facts` and `notes`, which
    the report shows too, `details`, and the cases of earlier commands whose maps are
    still there. The report compares each case with the `known` cases or, if these have
    splits, with their validation cases.
    """
    written = {**facts, "level": wanted.level, "notes": list(notes), **details}
    if wanted.lowest_level is not None:
        written["lowest_level"] = wanted.lowest_level
    written["earlier_cases"] = _earlier(output, rows)
    files.write_json(output / "run.json", written)
    held_out = [row for row in known if row.get("split") == "validation"] or known
    report.write_review_report(
        output / "report.html",
        rows,
        title=title,
        facts=facts,
        pictures=output / "pictures",
        known=_comparable(held_out, rows),
        rule_text=rule.describe(wanted),
        failure_dice=wanted.target_dice or by_structure.FAILURE_DICE,
        notes=notes,
        components=components or (),
    )
    if components is not None:
        path = output / component_rows.FILE
        cases_table.write_rows(path, components, component_rows.COLUMNS)
    write_unfinished(output, rows)
    os.replace(output / UNFINISHED, output / "cases.csv")
    own_files.of_tables(output).finish()


def _comparable(
    known: Sequence[Row], rows: Sequence[Row]
) -> dict[str, dict[str, list[Any]]]:
    """Returns the known cases' values of the measures that both sides have alike."""
    ours, found = by_structure.group(rows), {}
    for structure, own in by_structure.named_as(rows, known).items():
        unfit = known_cases.unfit_measures(own, ours.get(structure, []))
        found[structure] = {
            name: [row[name] for row in own] for name in MEASURES if name not in unfit
        }
    return found


def _earlier(output: Path, rows: Sequence[Row]) -> list[str]:
    """Returns the cases in OUTPUT that are in no row, in natural order."""
    return natural_order(own_files.cases(output) - {str(row["case"]) for row in rows})


def print_outcome(output: Path, rows: Sequence[Row], notes: Sequence[str]) -> int:
    """Prints the outcome and the paths (main process only); returns the exit code."""
    failed = [row for row in rows if cases_table.is_failed(row)]
    flagged = sum(row["flag"] == "yes" for row in rows)
    if runtime.is_main():
        cases = len({row["case"] for row in rows})
        said = counted(cases, "case")
        said += f", {len(rows)} structures" * (len(rows) > cases)
        print(f"{said}, {flagged} to review, {len(failed)} failed")
        if failed:
            print(printable(f"the first, {failed[0]['case']}: {failed[0]['status']}"))
        print("".join(f"{note}\n" for note in notes), end="")
        if earlier := _earlier(output, rows):
            words = f"{output} also holds maps of an earlier command, in no table: "
            words += f"{', '.join(earlier[:_SHOWN])}{', ...' * (len(earlier) > _SHOWN)}"
            print(printable(f"{words}; remove them, or name another --output"))
        print(f"cases:  {output / 'cases.csv'}\nreport: {output / 'report.html'}")
    return SOME_FAILED if failed else 0
