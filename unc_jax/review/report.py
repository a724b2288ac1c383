"""Reports, a page each: of a review, of one run, of a comparison of runs.

The functions here give the templates (`page`) what they show.
"""

import functools
import importlib.metadata
import math
import platform
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unc_jax.errors import InputError
from unc_jax.review import by_structure, case_groups, prediction_errors, rule
from unc_jax.review.page import Picture, read_picture, write_page
from unc_jax.study import run_folder, split_half
from unc_jax.study.cases_table import Row, is_failed
from unc_jax.study.tables import Table, format_p
from unc_jax.uncertainty.measures import MEASURES

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
      facts: what was run, shown in this order at the end, e.g. {"run": "runs/demo"}.
      pictures: folder of CASE.png; a case without one goes without.
      known: structure -> measure -> its values among cases of known Dice, to compare
        with; a structure that is not there goes without the comparison.
      failure_dice: a Dice below it counts as a failure of its structure.
      components: rows of components.csv.
    """
    ordered = rule.order(list(rows))
    totals = by_structure.summarise(rows, failure_dice)
    unseen = by_structure.unseen(rows)
    finite = {
        structure: {name: _finite(values.get(name, ())) for name in MEASURES}
        for structure, values in known.items()
    }
    picture = functools.partial(_picture_of, pictures)
    write_page(
        path,
        "review.html",
        title=title,
        rows=ordered,
        counts=_counts(rows),
        groups=case_groups.group_cases(ordered, lambda row: picture(row) is not None),
        summaries=totals if len(totals) > 1 else [],
        totals=totals,
        failure_dice=failure_dice,
        scored=_mean_dice(unseen) if _dices(unseen) else "",
        leaked=len(_dices(rows)) - len(_dices(unseen)),
        kept=_mean_dice([row for row in unseen if row["flag"] != "yes"]),
        rule=rule_text,
        notes=notes,
        facts=facts,
        compared=any(any(one.values()) for one in finite.values()),
        places_of=lambda row: finite.get(row["structure"], {}),
        picture_of=picture,
        components_of=case_groups.components_of(components),
        **case_groups.IN_REVIEWS,
    )


def write_run_report(run: Path, table: Table | None = None) -> Path:
    """Writes RUN/report.html from what an evaluation left there; returns its path.

    table: the run's row beside the paper's, a table of `study.tables`. A figure that is
    missing is left out. Raises InputError when there is no summary.json.
    """
    summary = run_folder.read_if_there(run / "summary.json")
    if summary is None:
        raise InputError(f"{run / 'summary.json'}: missing; evaluate the run first")
    review = run_folder.read_if_there(run / "review.json") or {}
    try:
        settings = run_folder.read_fields(run)
    except InputError:
        settings = {}
    name = run.resolve().name
    notes = [review[one] for one in ("verdict", "flags", "bounds") if one in review]
    if "test" in summary:
        notes += split_half.sentences(summary["test"]["measures"])
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
        notes=notes,
        predicted=prediction_errors.table([{"name": name, **review}])
        if review.get("predicted_dice")
        else None,
        reliability_of=split_half.cell,
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


def _picture_of(pictures: Path, row: Row) -> Picture | None:
    case = str(row["case"])
    # A name with a slash in it would lead out of the folder.
    inside = case.strip(".") and not set("/\\\0") & set(case)
    if not inside:
        return None
    # The picture of the only structure of a case has the case's name.
    names = (by_structure.picture_name(case, s) for s in (str(row["structure"]), ""))
    return next(filter(None, (read_picture(pictures / name) for name in names)), None)


def _counts(rows: Sequence[Row]) -> list[tuple[int, str]]:
    flagged = sum(row["flag"] == "yes" for row in rows)
    share = f" ({100 * flagged / len(rows):.0f} %)" if flagged else ""
    cases = len({row["case"] for row in rows})
    counts = [(cases, "case" if cases == 1 else "cases")]
    counts += [(len(rows), "structures")] if len(rows) > cases else []
    counts.append((flagged, f"to review{share}"))
    counts.append((len(rows) - flagged, "without a flag"))
    failed = sum(is_failed(row) for row in rows)
    return [*counts, (failed, "failed")] if failed else counts


def _dices(rows: Sequence[Row]) -> list[float]:
    return [float(dice) for row in rows if (dice := row["dice"]) is not None]


def _mean_dice(rows: Sequence[Row]) -> str:
    found = _dices(rows)
    return f"{np.mean(found):.3f} (n = {len(found)})" if found else "none"


def _finite(values: Sequence[float | None]) -> list[float]:
    return [v for v in values if v is not None and math.isfinite(v)]
