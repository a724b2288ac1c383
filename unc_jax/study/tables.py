"""Tables 1 and 2 as Markdown: a run's row in the paper's columns, then the paper's.

Correlations are Spearman's with Dice over the test cases, p values in brackets; n
counts the cases with both values defined, smallest over the three measures.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from unc_jax.uncertainty.measures import PAPER_MEASURES

UNDEFINED = "n/a"

_PATCHES: dict[tuple[int, ...], str] = {(128, 128, 16): "large", (64, 64, 16): "small"}
_HEADER = (
    "source",
    "cost function",
    "patch size",
    "mean dice test (training)",
    "CV (p)",
    "D_pw (p)",
    "U_labelled (p)",
    "n",
)


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


def table(
    summary: dict[str, Any],
    *,
    loss: str,
    patch: Sequence[int],
    target: str,
    name: str = "this run",
) -> str:
    """Header, the run's row and, for one of the paper's six models, the paper's row."""
    rows = [
        table_header(),
        table_row(summary, loss=loss, patch=patch, target=target, name=name),
    ]
    paper = paper_row(loss=loss, patch=patch, target=target)
    return "\n".join([*rows, paper] if paper is not None else rows)


def table_header() -> str:
    """The two header lines of the Markdown table."""
    return _line(_HEADER) + "\n" + _line(["---"] * len(_HEADER))


def table_row(
    summary: dict[str, Any],
    *,
    loss: str,
    patch: Sequence[int],
    target: str,
    name: str = "this run",
) -> str:
    """One Markdown row from summary.json; what is undefined or absent reads n/a."""
    test = summary.get("test")
    correlations = [test["measures"][m] if test else None for m in PAPER_MEASURES]
    counts = [one["n"] for one in correlations if one is not None]
    return _line(
        [
            f"{name} ({target})",
            loss,
            _patch_name(patch),
            f"{_dice(test)} ({_dice(summary.get('train'))})",
            *(
                _correlation(one["rho"], one["p"]) if one else UNDEFINED
                for one in correlations
            ),
            str(min(counts)) if counts else UNDEFINED,
        ]
    )


def paper_row(*, loss: str, patch: Sequence[int], target: str) -> str | None:
    """The paper's row for this model in the same columns; None if it has no such one.

    The paper prints no n: its test set has 55 cases, and how many of them were defined
    is not said.
    """
    paper = PAPER.get((target, loss, _PATCHES.get(tuple(patch), "")))
    if paper is None:
        return None
    return _line(
        [
            f"paper ({target})",
            loss,
            _patch_name(patch),
            f"{paper.dice_test:.2f} ({paper.dice_train:.2f})",
            *(_correlation(*getattr(paper, measure)) for measure in PAPER_MEASURES),
            UNDEFINED,
        ]
    )


def format_p(p: float | None) -> str:
    """0.038 as 0.038, 0.000095 as 9.5e-05: two digits, as the paper prints p values."""
    if p is None:
        return UNDEFINED
    return f"{p:.1e}" if 0 < p < 1e-3 else f"{p:.2g}"


def _correlation(rho: float | None, p: float | None) -> str:
    return UNDEFINED if rho is None else f"{rho:.2f} ({format_p(p)})"


def _dice(split: dict[str, Any] | None) -> str:
    mean = split["dice"]["mean"] if split else None
    return UNDEFINED if mean is None else f"{mean:.2f}"


def _patch_name(patch: Sequence[int]) -> str:
    size = "x".join(str(length) for length in patch)
    known = _PATCHES.get(tuple(patch))
    return f"{known} {size}" if known else size


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
