"""Cases of a report: texts on each case, and which of its structures are shown."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from unc_jax.review import component_rows
from unc_jax.review.page import rounded
from unc_jax.review.strips import along, place_among
from unc_jax.study.case_columns import TOLERANCE_MM
from unc_jax.study.cases_table import EMPTY, NO_LIVER, OK, Row, is_failed
from unc_jax.uncertainty.measures import MEASURES, Measure


class Group(NamedTuple):
    """A case in the report.

    Attributes:
      words: on its structures, e.g. "to review: spleen; no flag: liver"; "" where the
        review has but one structure.
      cards: number in the list and row of the structures that are shown at length.
      others: numbers of those that are in the list alone.
    """

    case: str
    words: str
    cards: list[tuple[int, Row]]
    others: list[int]


def group_cases(
    ordered: Sequence[Row], has_picture: Callable[[Row], bool]
) -> list[Group]:
    """Returns the cases in the order of their worst structure.

    Of several structures, those are shown that are to be reviewed or have a picture.
    """
    cases: dict[str, list[tuple[int, Row]]] = {}
    for number, row in enumerate(ordered, start=1):
        cases.setdefault(str(row["case"]), []).append((number, row))
    names = {str(row["structure"]) for row in ordered} - {""}
    groups = []
    for case, numbered in cases.items():
        shown = [
            len(numbered) == 1 or row["flag"] == "yes" or has_picture(row)
            for _, row in numbered
        ]
        pairs = list(zip(numbered, shown, strict=True))
        groups.append(
            Group(
                case,
                _words([row for _, row in numbered], names),
                [one for one, is_shown in pairs if is_shown],
                [one[0] for one, is_shown in pairs if not is_shown],
            )
        )
    return groups


def components_of(components: Sequence[Row]) -> Callable[[Row], list[str]]:
    """Returns a function from a row to lines on its components."""
    parts: dict[tuple, list[Row]] = {}
    for one in components:
        parts.setdefault((one["case"], one["structure"]), []).append(one)

    def words(row: Row) -> list[str]:
        own = parts.get((row["case"], row["structure"]), [])
        return component_rows.words_of(own, row["n_samples"])  # type: ignore[arg-type]

    return words


def _verdict(row: Row) -> tuple[str, str]:
    """Returns the badge of a case: its class in style.css and its words."""
    if is_failed(row):
        return "failed", "failed"
    if row["status"] in (NO_LIVER, EMPTY):
        return "review", str(row["status"]).replace("_", " ")
    return ("review", "review") if row["flag"] == "yes" else ("fine", "no flag")


def _reason(row: Row) -> str:
    """Returns the reason to review a case; "" without any."""
    # "failed: what went wrong" says more than the word alone.
    if is_failed(row):
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


def _words(rows: Sequence[Row], names: set[str]) -> str:
    own = [row for row in rows if row["structure"]]
    if len(names) < 2 or not own:
        return ""
    flagged = [str(row["structure"]) for row in own if row["flag"] == "yes"]
    kept = [str(row["structure"]) for row in own if row["flag"] != "yes"]
    absent = sorted(names.difference(flagged, kept))
    parts = [("to review", flagged), ("no flag", kept), ("not there", absent)]
    return "; ".join(f"{said}: {', '.join(ones)}" for said, ones in parts if ones)


# What the template of a review uses besides, of every review the same.
IN_REVIEWS: dict[str, Any] = {
    "tolerance": TOLERANCE_MM,
    "verdict": _verdict,
    "reason": _reason,
    "dice_words": _dice_words,
    "measures_of": _measures_of,
    "place_among": place_among,
    "along": along,
}
