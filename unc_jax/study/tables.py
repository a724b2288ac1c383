"""Tables as data, their conversion to Markdown, and formats of numbers."""

from collections.abc import Sequence
from typing import NamedTuple

UNDEFINED = "n/a"


class Strong(NamedTuple):
    """A cell whose first part, `text`, is bold."""

    text: str
    rest: str = ""

    def __str__(self) -> str:
        return f"**{self.text}**{self.rest}"


Cell = str | Strong


class Table(NamedTuple):
    """A table with its texts; without rows it is a list of notes.

    Attributes:
      title: short, for a page of several tables.
      caption: paragraph above.
      notes: list below, under the line `notes_title`.
      closing: paragraph at the end.
    """

    title: str
    header: Sequence[str] = ()
    rows: Sequence[Sequence[Cell]] = ()
    caption: str = ""
    notes_title: str = ""
    notes: Sequence[str] = ()
    closing: str = ""


def markdown(tables: Sequence[Table]) -> str:
    """Returns the text of a Markdown file of these tables; titles are left out."""
    parts = []
    for one in tables:
        lines = [one.header, ["---"] * len(one.header), *one.rows] if one.rows else []
        parts += [
            one.caption,
            "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines),
            one.notes_title,
            "\n".join(f"- {note}" for note in one.notes),
            one.closing,
        ]
    return "\n\n".join(filter(None, parts)) + "\n"


def number(value: float | None, form: str = ".2f") -> str:
    """Returns a number in the given format; n/a for None."""
    return UNDEFINED if value is None else f"{value:{form}}"


def format_p(p: float | None) -> str:
    """Returns a p value of two digits, as the paper prints them: 0.038, 9.5e-05."""
    return number(p, ".1e" if p is not None and 0 < p < 1e-3 else ".2g")


def interval(ends: Sequence[float] | None, form: str = "{:.2f} to {:.2f}") -> str:
    """Returns the ends of an interval in the given format; n/a for None."""
    return UNDEFINED if ends is None else form.format(*ends)
