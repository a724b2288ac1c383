"""The report of a comparison: its tables, verdicts and figures on one page."""

from collections.abc import Iterator
from pathlib import Path

from unc_jax.review import page
from unc_jax.review.markup import from_markdown

# Figures of many models are larger than the pictures of a case.
_MOST_BYTES = 12_000_000
_TABLES = {
    "table1.md": "Whole organ",
    "table2.md": "Part of an organ",
    "claims.md": "The paper's claims",
    "measures.md": "Measures as rankings of the cases",
    "voxels.md": "Voxels",
}
_FIGURES = {
    "figure1.png": (
        "Best, median and worst test case by mean Dice: of each model the "
        "segmentation, and the uncertainty map on one scale."
    ),
    "figure2.png": "Dice against each measure, one mark per case.",
    "referral.png": (
        "Mean Dice of the cases that are kept when the least certain ones go to a "
        "human."
    ),
    "reliability.png": (
        "How often a voxel near the boundary is foreground, against the probability "
        "it was given."
    ),
}


def write_study_report(output: Path) -> Path:
    """OUTPUT/report.html from what `compare` wrote there; what is missing is left out.

    Returns its path.
    """
    page.write_page(output / "report.html", "Comparison of models", _body(output))
    return output / "report.html"


def _body(output: Path) -> Iterator[str]:
    yield "<header><h1>Comparison of models</h1></header>"
    for file, title in _TABLES.items():
        path = output / file
        if path.is_file():
            yield f"<h2>{page.text(title)}</h2>"
            yield from from_markdown(path.read_text(encoding="utf-8", errors="replace"))
    for file, caption in _FIGURES.items():
        shown = page.picture(output / file, caption, most_bytes=_MOST_BYTES)
        if shown:
            yield f'<figure>{shown}<figcaption class="small soft">{caption}'
            yield "</figcaption></figure>"
