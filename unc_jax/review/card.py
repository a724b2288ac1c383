"""One case of the report: its picture, what was found, its measures' places."""

from pathlib import Path

from unc_jax.review import page, strips
from unc_jax.review.page import name
from unc_jax.study.cases_table import OK, Row
from unc_jax.uncertainty.measures import MEASURES

LABELS = {
    "cv": ("CV", "variance / mean of the sample volumes, voxels"),
    "d_pw": ("D_pw", "mean Dice of pairs of samples"),
    "u_labelled": ("U_labelled", "mean uncertainty inside the mask, nats"),
    "cv_roy": ("CV (Roy)", "sd / mean of the sample volumes"),
    "u_labelled_binary": (
        "U_labelled, binary",
        "mean sample entropy in the mask, nats",
    ),
    "predictive_entropy": ("predictive entropy", "in the mask, nats"),
    "mutual_information": ("mutual information", "in the mask, nats"),
}
_HIGHER_IS_BETTER = ("d_pw",)
_PAPER = ("cv", "d_pw", "u_labelled")


def card(number: int, row: Row, pictures: Path, places: dict[str, list[float]]) -> str:
    """The section of a case, `number` in the list; `places` as `validation` there."""
    case = str(row["case"])
    # A name with a slash in it would lead out of the folder.
    plain = case and "/" not in case and "\\" not in case and "\0" not in case
    shown = plain and page.picture(pictures / f"{case}.png", f"slices of {case}")
    frame = (
        f'<div class="picture" tabindex="0">{shown}</div>'
        '<p class="swipe soft small">swipe the picture sideways for more slices</p>'
        if shown
        else '<p class="soft small">No picture of this case.</p>'
        if row["status"] == OK
        else ""
    )
    return (
        f'<section class="case" id="case-{number}"><div class="head">'
        f'<h3>{number}. {name(case)}</h3>{badge(row)}<a class="up" href="#list">'
        f'back to the list</a></div>{frame}<div class="both"><div>{_findings(row)}'
        f"</div><div>{_measures(row, places)}</div></div></section>"
    )


def _findings(row: Row) -> str:
    entries = []
    known = [_float(row.get(key)) for key in ("predicted_dice", "dice_lower", "dice")]
    if any(value is not None for value in known):
        labels = ("predicted", "lower bound", "true")
        said = ", ".join(
            f"{label} {rounded(value, 3)}"
            for label, value in zip(labels, known, strict=True)
            if value is not None
        )
        entries.append(("Dice", f"{said}{strips.dice_bar(*known)}"))
    if row["volume_ml"] is not None:
        volume = f"{rounded(row['volume_ml'])} ml"
        if row["volume_low_ml"] is not None and row["volume_high_ml"] is not None:
            volume += (
                f' <span class="soft">(samples {rounded(row["volume_low_ml"])} to '
                f"{rounded(row['volume_high_ml'])})</span>"
            )
        entries.append(("Volume", volume))
    if row.get("reference_ml") is not None:
        entries.append(("Reference", f"{rounded(row['reference_ml'])} ml"))
    for term, key in (("Unlike", "unlike"), ("Warnings", "warnings")):
        if row.get(key):
            entries.append((term, name(row[key])))
    if row.get("input"):
        entries.append(("Input", f'<span class="small">{name(row["input"])}</span>'))
    why = reason(row)
    first = [("Reason", f"<strong>{name(why)}</strong>")] if why else []
    return page.definitions(first + entries)


def _measures(row: Row, places: dict[str, list[float]]) -> str:
    present = [m for m in MEASURES if row.get(m) is not None]
    if not present:
        return ""
    main = "".join(_measure(m, row, places) for m in present if m in _PAPER)
    rest = "".join(_measure(m, row, places) for m in present if m not in _PAPER)
    more = (
        "<details><summary>variants</summary>"
        f'<table class="measures">{rest}</table></details>'
    )
    return (f'<table class="measures">{main}</table>' if main else "") + (
        more if rest else ""
    )


def _measure(measure: str, row: Row, places: dict[str, list[float]]) -> str:
    label, meaning = LABELS[measure]
    value, values = float(row[measure] or 0.0), places.get(measure)
    strip = ""
    if values:
        higher = measure in _HIGHER_IS_BETTER
        strip = (
            f"<td>{strips.place(value, values, higher_is_better=higher)}"
            f'<span class="soft small">{strips.rank_text(value, values, higher)}</span>'
            "</td>"
        )
    return (
        f'<tr><td>{label}<br><span class="soft small">{meaning}</span></td>'
        f'<td class="number">{rounded(value, 3)}</td>{strip}</tr>'
    )


def badge(row: Row) -> str:
    """The verdict in one or two words, coloured."""
    if failed(row):
        return '<span class="badge failed">failed</span>'
    special = {"no_liver": "no liver", "empty": "empty"}
    if row["status"] in special:
        return f'<span class="badge failed">{special[str(row["status"])]}</span>'
    if row["flag"] == "yes":
        return '<span class="badge review">review</span>'
    return '<span class="badge fine">no flag</span>'


def failed(row: Row) -> bool:
    """Whether the case could not be worked on at all."""
    return str(row["status"]).startswith("failed")


def reason(row: Row) -> str:
    """Why a human should look; "" when there is no reason to."""
    # "failed: what went wrong" says more than the word alone.
    if failed(row):
        return str(row["status"])
    if row.get("reason"):
        return str(row["reason"])
    return "" if row["status"] == OK else str(row["status"])


def _float(value: str | int | float | None) -> float | None:
    return None if value is None else float(value)


def rounded(value: str | int | float | None, digits: int = 2) -> str:
    """Decimals by size: 0.874, 12.3, 1,520; empty where undefined."""
    if value is None:
        return ""
    number = float(value)
    if abs(number) >= 100:
        return f"{number:,.0f}"
    if abs(number) >= 10:
        return f"{number:.1f}"
    return (
        f"{number:.{digits}f}" if abs(number) >= 0.1 or not number else f"{number:#.2g}"
    )
