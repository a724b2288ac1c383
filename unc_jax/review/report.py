"""The report of a review: one page, the cases that need a human first."""

import importlib.metadata
import math
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unc_jax.review import card, page, rule
from unc_jax.review.page import name, text
from unc_jax.study.cases_table import Row

_HOW_TO_READ = (
    "Pictures: the axial, coronal and sagittal slice with the most uncertainty, and "
    "the axial slice where the organ is largest. Above, the scan (without one, the "
    "mean of the samples) with the outline of "
    'the segmentation in <span class="line-mask">blue</span> (and of the reference, '
    'where there is one, in <span class="line-reference">green</span>); below, the '
    "uncertainty of each voxel on one scale for all cases, bright where the samples "
    "are unsure. Patient's right (R) and front (A) are on the left. Slices count from "
    "the feet, the back and the patient's left."
)
_STRIPS = (
    "Strips: each tick is a case of known Dice that this one is compared with, the "
    "orange dot this case, worse on the left, better on the right; an arrow means "
    "beyond all of them."
)
_DICE = (
    "Dice: the overlap with what a human would draw, 1 at best. The bar runs from the "
    "lower bound up, the dot is the prediction, a blue diamond the true value where a "
    "reference exists."
)


def write_report(
    path: Path,
    rows: list[Row],
    *,
    title: str,
    facts: dict[str, str],
    pictures: Path,
    validation: dict[str, list[float]] | None,
    rule_text: str,
) -> None:
    """Writes report.html, a page of its own: pictures inside, no scripts, no network.

    Args:
      path: the file, written atomically.
      rows: rows of the work list, in any order.
      title: heading of the page.
      facts: what was run, shown in this order at the end, e.g. {"run": "runs/demo"}.
      pictures: folder of CASE.png; a case without one goes without.
      validation: measure -> its values among the cases with known Dice; None or {}
        leaves out the comparison.
      rule_text: the rule of the flags, one sentence or a few.

    Every text may be hostile; nothing is taken for markup.
    """
    ordered = rule.order(rows)
    places = {
        measure: [v for v in values if v is not None and math.isfinite(v)]
        for measure, values in (validation or {}).items()
    }
    body = _body(ordered, title, facts, Path(pictures), places, rule_text)
    page.write_page(path, title, body)


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


def _body(
    rows: list[Row],
    title: str,
    facts: dict[str, str],
    pictures: Path,
    places: dict[str, list[float]],
    rule_text: str,
) -> Iterator[str]:
    yield f"<header><h1>{name(title)}</h1>{_summary(rows)}"
    yield f"<p><strong>Rule:</strong> {name(rule_text)}</p></header>"
    yield _list(rows)
    notes = [_HOW_TO_READ, _DICE, *([_STRIPS] if any(places.values()) else [])]
    yield "<h2>Cases</h2><details open><summary>How to read this</summary>"
    yield "".join(f'<p class="small">{note}</p>' for note in notes) + "</details>"
    for number, row in enumerate(rows, start=1):
        yield card.card(number, row, pictures, places)
    yield '<h2>How this was made</h2><div class="small">'
    yield page.definitions((term, name(fact)) for term, fact in facts.items())
    yield '<p class="soft">Made by research software, not by a medical device: no '
    yield "number here replaces a look at the scan.</p></div>"


def _summary(rows: list[Row]) -> str:
    flagged = sum(row["flag"] == "yes" for row in rows)
    cards = [(len(rows), "cases"), (flagged, _share("to review", flagged, len(rows)))]
    cards.append((len(rows) - flagged, "without a flag"))
    failed = sum(card.failed(row) for row in rows)
    if failed:
        cards.append((failed, "failed"))
    shown = "".join(
        f'<div class="card"><b>{count}</b>{text(what)}</div>' for count, what in cards
    )
    return f'<div class="cards">{shown}</div>{_kept_dice(rows)}'


def _share(what: str, count: int, total: int) -> str:
    return f"{what} ({100 * count / total:.0f} %)" if count else what


def _kept_dice(rows: list[Row]) -> str:
    # Only where references exist: what the flags would have bought.
    scored = [row for row in rows if row.get("dice") is not None]
    kept = [row for row in scored if row["flag"] != "yes"]
    if not scored:
        return ""
    means = [
        f"{np.mean([float(r['dice'] or 0.0) for r in some]):.3f} (n = {len(some)})"
        if some
        else "none"
        for some in (scored, kept)
    ]
    return (
        f"<p>Mean Dice with the references: {means[0]} over all cases, {means[1]} "
        "over those without a flag.</p>"
    )


def _list(rows: list[Row]) -> str:
    scored = any(row.get("dice") is not None for row in rows)
    truth = '<th class="number">Dice</th>' if scored else ""
    lines = "".join(
        _line(number, row, scored) for number, row in enumerate(rows, start=1)
    )
    return (
        '<h2 id="list">Worst first</h2><table class="list"><thead><tr>'
        '<th class="number">#</th><th>case</th><th>review</th>'
        '<th class="number">predicted Dice</th><th class="number">lower bound</th>'
        f'{truth}<th class="number">volume, ml</th><th class="wide">reason</th>'
        f"</tr></thead><tbody>{lines}</tbody></table>"
    )


def _line(number: int, row: Row, scored: bool) -> str:
    cells = [
        ("predicted Dice", card.rounded(row["predicted_dice"], 3)),
        ("lower bound", card.rounded(row["dice_lower"], 3)),
        *([("Dice", card.rounded(row.get("dice"), 3))] if scored else []),
        ("ml", card.rounded(row["volume_ml"])),
    ]
    numbers = "".join(
        f'<td class="number" data-label="{label}">{value}</td>'
        for label, value in cells
    )
    return (
        f'<tr><td class="number">{number}</td>'
        f'<td><a href="#case-{number}">{name(row["case"])}</a></td>'
        f"<td>{card.badge(row)}</td>{numbers}"
        f'<td class="wide small">{name(card.reason(row))}</td></tr>'
    )
