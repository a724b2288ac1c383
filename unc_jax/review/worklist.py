"""Functions that predict and score share: flags, known cases, the output's tables."""

import argparse
import csv
import errno
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from unc_jax import runtime
from unc_jax.cli import SOME_FAILED
from unc_jax.data import files
from unc_jax.errors import InputError, counted, printable
from unc_jax.review import (
    by_structure,
    component_rows,
    own_files,
    report,
    rule,
)
from unc_jax.review.rule import Rule
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS, REVIEW_COLUMNS
from unc_jax.study.cases_table import Row
from unc_jax.uncertainty.measures import MEASURES

UNFINISHED = "cases.unfinished.csv"
_OF_A_CASE = (errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)
_SHOWN = 5  # cases that a message names


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --largest-component, --calibrate and the flags of the review rule."""
    parser.add_argument(
        "--largest-component",
        action="store_true",
        help="keep only the largest component of each mask; the row says what was "
        "removed",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="CASES_CSV",
        help="table of cases with a known Dice, to calibrate the predicted Dice",
    )
    parser.add_argument(
        "--target-dice",
        type=float,
        metavar="DICE",
        help="flag cases whose Dice may be below, by its lower bound",
    )
    parser.add_argument(
        "--review-fraction",
        type=float,
        metavar="SHARE",
        help="flag this share of the cases, the worst; 0.1 is the worst tenth",
    )
    parser.add_argument(
        "--level",
        type=float,
        default=0.9,
        help="share of cases with a Dice above their lower bound (%(default)s)",
    )
    parser.add_argument(
        "--release-level",
        type=float,
        metavar="SHARE",
        help="release cases from review, of which at most this share is expected to "
        "have a Dice below --target-dice",
    )


def rule_of(arguments: argparse.Namespace) -> Rule:
    """Returns the rule that the flags define; InputError for values out of range."""
    wanted = Rule(
        arguments.target_dice,
        arguments.review_fraction,
        arguments.level,
        arguments.release_level,
    )
    rule.check(wanted)
    return wanted


def read_known(path: Path, trained_on: Collection[str] = ()) -> list[Row]:
    """Reads the rows with a known Dice from a cases.csv of an evaluation or a review.

    Training cases, marked in the table or named in `trained_on`, are left out with a
    message, because their Dice is better than that of new cases. Raises InputError when
    no case is left.
    """
    try:
        with cases_table.opened(path) as file:
            header = next(csv.reader(file), [])
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; name a cases.csv") from None
    columns = EVALUATION_COLUMNS if "split" in header else REVIEW_COLUMNS
    rows = cases_table.read_rows(path, columns)
    rows = [row for row in rows if row["dice"] is not None]
    if not rows:
        raise InputError(f"{path}: no case has a Dice; score with --references first")
    seen = [
        str(row["case"])
        for row in rows
        if row.get("split") == "train"
        or row.get("unlike") == cases_table.LEAKED
        or row["case"] in trained_on
    ]
    seen = [*dict.fromkeys(seen)]  # a case has a row for each structure
    kept = [{**row, "split": ""} for row in rows if row["case"] not in seen]
    if seen:
        shown = ", ".join(seen[:_SHOWN]) + ", ..." * (len(seen) > _SHOWN)
        words = f"{path}: left out, as training cases calibrate nothing: "
        words += f"{counted(len(seen), 'training case')}: {shown}"
        if not kept:
            raise InputError(words)
        print(printable(words), file=sys.stderr)
    return kept


def check_samples(path: Path, known: Sequence[Row], trained: Sequence[Row]) -> None:
    """Raises InputError if known cases have another number of samples than the run."""
    theirs, ours = (
        {int(n) for row in rows if (n := row["n_samples"])} for rows in (known, trained)
    )
    if not theirs <= ours:
        counts = " and ".join(map(str, sorted(theirs)))
        raise InputError(
            f"{path}: its cases have {counts} samples, the run draws {max(ours)}, and "
            "so their measures differ; calibrate with cases that the run segmented"
        )


def flags_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Returns the flags of a command as text, and the SHA-256 of the --calibrate table.

    Flags without a value are left out.
    """
    given = {
        name: str(value)
        for name, value in vars(arguments).items()
        if value is not None and value is not False and value != () and name != "debug"
    }
    if arguments.calibrate:
        given["calibrate_sha256"] = files.digest([arguments.calibrate])
    return given


def failed_row(case: str, source: Path, error: Exception) -> Row:
    """Returns the row of a failed case; unexpected errors are logged with traceback."""
    words = " ".join(str(error).split())[:300]
    if isinstance(error, OSError) and error.filename:
        words = f"{error.strerror}: {error.filename}"[:300]
    elif not isinstance(error, InputError):
        logging.exception("case %s failed", case)
        words = f"{type(error).__name__}: {words}"
    status = cases_table.FAILED + words
    return cases_table.new_row(
        REVIEW_COLUMNS, case=case, status=status, input=str(source)
    )


def is_of_the_disk(error: Exception, output: Path) -> bool:
    """Tells whether an error concerns the output's disk, so that later cases fail too.

    A name that is too long, or a path that may not be written or is taken by another
    file, concerns a single case.
    """
    if not isinstance(error, OSError):
        return False
    ours = Path(error.filename or output).is_relative_to(output)
    closed = error.errno in (errno.EACCES, errno.EPERM)
    of_a_case = os.access(output, os.W_OK) if closed else error.errno in _OF_A_CASE
    return ours and not of_a_case


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
    the report shows too, and `details`. The report compares each case with the `known`
    cases or, if these have splits, with their validation cases.
    """
    written = {**facts, "level": wanted.level, "notes": list(notes), **details}
    files.write_json(output / "run.json", written)
    held_out = [row for row in known if row.get("split") == "validation"] or known
    report.write_review_report(
        output / "report.html",
        rows,
        title=title,
        facts=facts,
        pictures=output / "pictures",
        known={
            structure: {name: [row[name] for row in own] for name in MEASURES}  # type: ignore[misc]
            for structure, own in by_structure.group(held_out).items()
        },
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


def print_outcome(output: Path, rows: Sequence[Row], notes: Sequence[str]) -> int:
    """Prints the outcome and the paths (main process only); returns the exit code."""
    failed = [r for r in rows if str(r["status"]).startswith(cases_table.FAILED)]
    flagged = sum(row["flag"] == "yes" for row in rows)
    if runtime.is_main():
        cases = len({row["case"] for row in rows})
        said = counted(cases, "case")
        said += f", {len(rows)} structures" * (len(rows) > cases)
        print(f"{said}, {flagged} to review, {len(failed)} failed")
        if failed:
            print(printable(f"the first, {failed[0]['case']}: {failed[0]['status']}"))
        print("".join(f"{note}\n" for note in notes), end="")
        print(f"cases:  {output / 'cases.csv'}\nreport: {output / 'report.html'}")
    return SOME_FAILED if failed else 0
