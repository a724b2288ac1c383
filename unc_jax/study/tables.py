"""Tables as data, their Markdown, and the paper's Tables 1 and 2 beside one run."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

UNDEFINED = "n/a"
_PATCHES: dict[tuple[int, ...], str] = {(128, 128, 16): "large", (64, 64, 16): "small"}


class Strong(NamedTuple):
    """A cell that begins in bold."""

    text: str
    rest: str = ""

    def __str__(self) -> str:
        return f"**{self.text}**{self.rest}"


Cell = str | Strong


class Table(NamedTuple):
    """A table with what stands around it; without rows it is a list of notes.

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


class PaperRow(NamedTuple):
    """One row as printed: mean Dice, and (rho, p) of each of `PAPER_MEASURES`."""

    dice_test: float
    dice_train: float
    cv: tuple[float, float]
    d_pw: tuple[float, float]
    u_labelled: tuple[float, float]


# Hoebel et al., Tables 1 (liver) and 2 (tumor; its text rounds Dice to 0.52 and 0.47).
PAPER = {
    ("liver", "dice", "large"): PaperRow(
        0.89, 0.90, (-0.50, 9.5e-05), (0.81, 1.2e-13), (-0.64, 1.3e-07)
    ),
    ("liver", "dice", "small"): PaperRow(
        0.86, 0.86, (-0.28, 0.038), (0.59, 1.9e-06), (-0.50, 1.1e-04)
    ),
    ("liver", "wcc", "large"): PaperRow(
        0.94, 0.96, (-0.77, 5.4e-12), (0.89, 5.6e-20), (-0.69, 6.9e-09)
    ),
    ("liver", "wcc", "small"): PaperRow(
        0.89, 0.90, (-0.53, 3.5e-05), (0.81, 5.9e-14), (-0.73, 2.1e-10)
    ),
    ("tumor", "dice", "large"): PaperRow(
        0.53, 0.63, (-0.58, 7.4e-06), (0.68, 3.4e-08), (-0.76, 1.3e-10)
    ),
    ("tumor", "wcc", "large"): PaperRow(
        0.48, 0.61, (-0.73, 2.4e-10), (0.79, 1.1e-12), (-0.79, 1.1e-12)
    ),
}


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Returns the lines of a Markdown table, without a newline at the end."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, cells))} |" for cells in lines)


def markdown(tables: Sequence[Table]) -> str:
    """Returns the text of a Markdown file of these tables; titles are left out."""
    parts = []
    for one in tables:
        parts += [
            one.caption,
            markdown_table(one.header, one.rows) if one.rows else "",
            one.notes_title,
            "\n".join(f"- {note}" for note in one.notes),
            one.closing,
        ]
    return "\n\n".join(filter(None, parts)) + "\n"


def run_table(
    summary: dict[str, Any],
    *,
    loss: str,
    patch: Sequence[int],
    target: str,
    name: str = "this run",
) -> Table:
    """Returns a run's row in the paper's columns, and that of the paper's same model.

    summary: content of summary.json. Correlations are Spearman's with Dice over the
    test cases, p values in brackets; n counts the cases with both values defined,
    smallest over the measures. The paper prints no n: its test set has 55 cases, and
    how many of them were defined is not said. What is undefined or absent reads n/a.
    """
    test = summary.get("test")
    found = [test["measures"][one] for one in PAPER_MEASURES] if test else []
    known = _PATCHES.get(tuple(patch))
    size = " ".join(filter(None, [known, "x".join(map(str, patch))]))
    own = [
        f"{name} ({target})",
        *(loss, size),
        f"{_dice(test)} ({_dice(summary.get('train'))})",
        *(_correlation(one["rho"], one["p"]) for one in found),
        *([] if found else [UNDEFINED] * len(PAPER_MEASURES)),
        str(min(one["n"] for one in found)) if found else UNDEFINED,
    ]
    rows = [own]
    paper = PAPER.get((target, loss, known or ""))
    if paper is not None:
        rows.append(
            [
                f"paper ({target})",
                *(loss, size),
                f"{paper.dice_test:.2f} ({paper.dice_train:.2f})",
                *(_correlation(*getattr(paper, one)) for one in PAPER_MEASURES),
                UNDEFINED,
            ]
        )
    header = ("source", "cost function", "patch size", "mean dice test (training)")
    return Table("Beside the paper", (*header, *measure_columns(), "n"), rows)


def measure_columns() -> list[str]:
    """Returns the headers of the columns of the paper's measures."""
    return [f"{MEASURES[name].label} (p)" for name in PAPER_MEASURES]


def number(value: float | None, form: str = ".2f") -> str:
    """Returns a number in the given format; n/a for None."""
    return UNDEFINED if value is None else f"{value:{form}}"


def format_p(p: float | None) -> str:
    """Returns a p value of two digits, as the paper prints them: 0.038, 9.5e-05."""
    return number(p, ".1e" if p is not None and 0 < p < 1e-3 else ".2g")


def _correlation(rho: float | None, p: float | None) -> str:
    return UNDEFINED if rho is None else f"{rho:.2f} ({format_p(p)})"


def _dice(split: dict[str, Any] | None) -> str:
    return number(split["dice"]["mean"] if split else None)
