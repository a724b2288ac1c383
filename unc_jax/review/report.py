"""Reports, a page each: of a review, of one run, of a comparison of runs.

The functions here give the templates (`page`) what they show.
"""

import importlib.metadata
import math
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.review import by_structure, component_rows, rule
from unc_jax.review.case_groups import group_cases
from unc_jax.review.page import Picture, read_picture, rounded, write_page
from unc_jax.review.strips import along, place_among
from unc_jax.study import run_folder
from unc_jax.study.cases_table import (
    EMPTY,
    FAILED,
    NO_LIVER,
    OK,
    SAMPLE_COLUMNS,
    TOLERANCE_MM,
    Row,
)
from unc_jax.study.tables import Table, format_p
from unc_jax.uncertainty.measures import MEASURES, Measure

_SPLITS = {"test": "test", "validation": "validation", "train": "training"}


def write_review_report(
    path: Path,
    rows: Sequence[Row],
    *,
    title: str,
    facts: Mapping[str, str],
    pictures: Path,
    known: Mapping[str, Mapping[str, Sequence[float | None]]],
    rule_text: str,
    failure_dice: float = by_structure.FAILURE_DICE,
    notes: Sequence[str] = (),
    components: Sequence[Row] = (),
) -> None:
    """Writes the report of a review: the list, worst first, and a part for each case.

    Of a case with several structures, those without a flag and without a picture are in
    the list alone.

    Args:
      rows: of a review's table, in any order.
      facts: what was run, shown in this order at the end, e.g. {"run": "runs/demo"}.
      pictures: folder of CASE.png; a case without one goes without.
      known: structure -> measure -> its values among cases of known Dice, to compare
        with; a structure that is not there goes without the comparison.
      rule_text: the rule of the flags in words.
      failure_dice: a Dice below it counts as a failure of its structure.
      notes: sentences on the worth of flags and bounds.
      components: rows of components.csv, of any of the structures.
    """
    parts: dict[tuple, list[Row]] = {}
    for one in components:
        parts.setdefault((one["case"], one["structure"]), []).append(one)
    ordered = rule.order(list(rows))
    kept = [row for row in rows if row["flag"] != "yes"]
    several = len(by_structure.group(rows)) > 1
    totals = by_structure.summarise(rows, failure_dice)
    finite = {
        structure: {name: _finite(values.get(name, ())) for name in MEASURES}
        for structure, values in known.items()
    }

    def picture(row: Row) -> Picture | None:
        return _picture_of(pictures, row)

    write_page(
        path,
        "review.html",
        title=title,
        rows=ordered,
        counts=_counts(rows),
        groups=group_cases(ordered, lambda row: picture(row) is not None),
        tolerance=TOLERANCE_MM,
        summaries=totals if several else [],
        totals=totals,
        failure_dice=failure_dice,
        scored=_mean_dice(rows) if _dices(rows) else "",
        kept=_mean_dice(kept),
        rule=rule_text,
        notes=notes,
        facts=facts,
        compared=any(any(one.values()) for one in finite.values()),
        places_of=lambda row: finite.get(row["structure"], {}),
        picture_of=picture,
        components_of=lambda row: component_rows.words_of(
            parts.get((row["case"], row["structure"]), []), row["n_samples"]
        ),
        verdict=_verdict,
        reason=_reason,
        dice_words=_dice_words,
        columns={name: one for name, one in SAMPLE_COLUMNS.items() if one.label},
        measures_of=_measures_of,
        place_among=place_among,
        along=along,
    )


def write_run_report(run: Path, table: Table | None = None) -> Path:
    """Writes RUN/report.html from what an evaluation left there; returns its path.

    table: the run's row beside the paper's, a table of `study.tables`. A figure that is
    missing is left out. Raises InputError when there is no summary.json.
    """
    try:
        summary = files.read_json(run / "summary.json")
    except FileNotFoundError:
        raise InputError(f"{run}: no summary.json; evaluate the run first") from None
    except ValueError as error:
        raise InputError(f"{run / 'summary.json'}: no JSON ({error})") from None
    review = _read_if_there(run / "review.json")
    try:
        settings = run_folder.read_fields(run)
    except InputError:
        settings = {}
    name = run.resolve().name
    write_page(
        run / "report.html",
        "run.html",
        title=f"Run {name}",
        name=name,
        summary=summary,
        splits=_SPLITS,
        table=table,
        measures=MEASURES,
        format_p=format_p,
        rising=[one.label for one in MEASURES.values() if one.sign > 0],
        picture_of=lambda name: read_picture(run / name),
        settings=settings,
        notes=[
            review[name] for name in ("verdict", "flags", "bounds") if name in review
        ],
    )
    return run / "report.html"


def write_study_report(output: Path, tables: Sequence[Table]) -> Path:
    """Writes OUTPUT/report.html of a comparison; returns its path.

    tables: of `study.tables`, in order. A figure that is missing is left out.
    """
    write_page(
        output / "report.html",
        "study.html",
        title="Comparison of models",
        tables=tables,
        picture_of=lambda name: read_picture(output / name),
    )
    return output / "report.html"


def versions() -> dict[str, str]:
    """Returns the versions that numbers may depend on, and the time ("made")."""
    found = {}
    for package in ("unc_jax", "jax", "flax", "numpy"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # run from a folder of sources
            found[package] = "not installed"
    made = time.strftime("%Y-%m-%d %H:%M")
    return {**found, "python": platform.python_version(), "made": made}


def _read_if_there(path: Path) -> dict[str, Any]:
    try:
        return files.read_json(path)
    except (FileNotFoundError, ValueError):
        return {}


def _picture_of(pictures: Path, row: Row) -> Picture | None:
    case = str(row["case"])
    # A name with a slash in it would lead out of the folder.
    inside = case.strip(".") and not set("/\\\0") & set(case)
    name = by_structure.picture_name(case, str(row["structure"]))
    return read_picture(pictures / name) if inside else None


def _counts(rows: Sequence[Row]) -> list[tuple[int, str]]:
    flagged = sum(row["flag"] == "yes" for row in rows)
    share = f" ({100 * flagged / len(rows):.0f} %)" if flagged else ""
    cases = len({row["case"] for row in rows})
    counts = [(cases, "case" if cases == 1 else "cases")]
    counts += [(len(rows), "structures")] if len(rows) > cases else []
    counts.append((flagged, f"to review{share}"))
    counts.append((len(rows) - flagged, "without a flag"))
    failed = sum(_is_failed(row) for row in rows)
    return [*counts, (failed, "failed")] if failed else counts


def _dices(rows: Sequence[Row]) -> list[float]:
    return [float(dice) for row in rows if (dice := row["dice"]) is not None]


def _mean_dice(rows: Sequence[Row]) -> str:
    found = _dices(rows)
    return f"{np.mean(found):.3f} (n = {len(found)})" if found else "none"


def _is_failed(row: Row) -> bool:
    return str(row["status"]).startswith(FAILED)


def _verdict(row: Row) -> tuple[str, str]:
    """Returns the badge of a case: its class in style.css and its words."""
    if _is_failed(row):
        return "failed", "failed"
    if row["status"] in (NO_LIVER, EMPTY):
        return "review", str(row["status"]).replace("_", " ")
    return ("review", "review") if row["flag"] == "yes" else ("fine", "no flag")


def _reason(row: Row) -> str:
    """Returns why a human should look; "" when there is no reason to."""
    # "failed: what went wrong" says more than the word alone.
    if _is_failed(row):
        return str(row["status"])
    return str(row["reason"] or ("" if row["status"] == OK else row["status"]))


def _dice_words(row: Row) -> str:
    names = ("predicted_dice", "dice_lower", "dice")
    said = [
        f"{label} {rounded(float(value), 3)}"
        for name, label in zip(names, ("predicted", "lower bound", "true"), strict=True)
        if (value := row[name]) is not None
    ]
    return ", ".join(said)


def _measures_of(row: Row, in_paper: bool) -> dict[str, Measure]:
    return {
        name: one
        for name, one in MEASURES.items()
        if one.in_paper == in_paper and row.get(name) is not None
    }


def _finite(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]
