"""Cases of a report: what is said of each, and which of its structures are shown."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from unc_jax.study.cases_table import Row


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


def _words(rows: Sequence[Row], names: set[str]) -> str:
    own = [row for row in rows if row["structure"]]
    if len(names) < 2 or not own:
        return ""
    flagged = [str(row["structure"]) for row in own if row["flag"] == "yes"]
    kept = [str(row["structure"]) for row in own if row["flag"] != "yes"]
    absent = sorted(names.difference(flagged, kept))
    parts = [("to review", flagged), ("no flag", kept), ("not there", absent)]
    return "; ".join(f"{said}: {', '.join(ones)}" for said, ones in parts if ones)
