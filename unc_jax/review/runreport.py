"""The report of a training or study run: its table, figures and numbers on one page.

python -m unc_jax.review.runreport RUN     writes RUN/report.html
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from unc_jax.errors import InputError
from unc_jax.review import page
from unc_jax.review.card import LABELS
from unc_jax.review.markup import from_markdown
from unc_jax.review.page import name
from unc_jax.study.tables import UNDEFINED, format_p
from unc_jax.uncertainty.measures import MEASURES

_FIGURES = {
    "progress.png": "Training loss and mean validation Dice over the steps.",
    "figures/figure1.png": (
        "Best, median and worst test case: segmentation above, uncertainty below."
    ),
    "figures/figure2.png": "Dice against each measure, one mark per case.",
}
_SPLITS = {"test": "test", "validation": "validation", "train": "training"}


def write_run_report(run: Path) -> Path:
    """RUN/report.html from what an evaluated run left there; returns its path.

    What is missing (a figure, a table) is left out. Raises InputError when the folder
    has no summary.json, which evaluation writes.
    """
    run = Path(run)
    try:
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{run}: no summary.json; evaluate the run first") from None
    except ValueError as error:
        raise InputError(f"{run / 'summary.json'}: no JSON ({error})") from None
    page.write_page(run / "report.html", f"Run {run.name}", _body(run, summary))
    return run / "report.html"


def _body(run: Path, summary: dict[str, Any]) -> Iterator[str]:
    yield f"<header><h1>Run {name(run.resolve().name)}</h1>{_cards(summary)}</header>"
    yield from _table(run / "table.md")
    yield "<h2>Does uncertainty tell good from bad segmentations?</h2>"
    yield (
        '<p class="small">Spearman\'s rank correlation of each measure with Dice, with '
        "its 95 % bootstrap interval over cases; n counts the cases where both are "
        "defined. A measure is useful when the interval stays away from 0: above it "
        "for D_pw, below it for all others.</p>"
    )
    if "test" in summary:
        yield f"<h3>Test cases</h3>{_correlations(summary['test'])}"
    for file, caption in _FIGURES.items():
        shown = page.picture(run / file, caption)
        if shown:
            yield f'<figure>{shown}<figcaption class="small soft">{caption}'
            yield "</figcaption></figure>"
    for split in ("validation", "train"):
        if split in summary:
            yield f"<details><summary>{_SPLITS[split]} cases</summary>"
            yield f"{_correlations(summary[split])}</details>"
    yield _settings(run / "config.json")


def _cards(summary: dict[str, Any]) -> str:
    cards = []
    for split in (split for split in _SPLITS if split in summary):
        found = summary[split]
        mean, ci95 = found["dice"]["mean"], found["dice"]["ci95"]
        interval = f", 95 % {ci95[0]:.3f} to {ci95[1]:.3f}" if ci95 else ""
        failed = f", {found['n_failed']} failed" if found["n_failed"] else ""
        cards.append(
            f'<div class="card"><b>{UNDEFINED if mean is None else f"{mean:.3f}"}</b>'
            f'mean Dice, {_SPLITS[split]}<br><span class="soft small">'
            f"n = {found['n_defined']}{interval}{failed}</span></div>"
        )
    return f'<div class="cards">{"".join(cards)}</div>'


def _table(path: Path) -> Iterator[str]:
    if path.is_file():
        yield "<h2>Beside the paper</h2>"
        yield from from_markdown(path.read_text(encoding="utf-8", errors="replace"))


def _correlations(found: dict[str, Any]) -> str:
    lines = []
    for measure in MEASURES:
        one = found["measures"][measure]
        rho, ci95 = one["rho"], one["ci95"]
        interval = f"{ci95[0]:.2f} to {ci95[1]:.2f}" if ci95 else UNDEFINED
        lines.append(
            f'<tr><td>{LABELS[measure][0]}</td><td class="number">'
            f"{UNDEFINED if rho is None else f'{rho:.2f}'}</td>"
            f'<td class="number">{interval}</td>'
            f'<td class="number">{format_p(one["p"])}</td>'
            f'<td class="number">{one["n"]}</td></tr>'
        )
    return (
        '<div class="wider" tabindex="0"><table><thead><tr><th>measure</th>'
        '<th class="number">rho</th><th class="number">95 %</th>'
        '<th class="number">p</th><th class="number">n</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _settings(path: Path) -> str:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return ""
    entries = [(field, name(value)) for field, value in fields.items()]
    return (
        "<h2>How this was made</h2><details><summary>every setting</summary>"
        f'<div class="small">{page.definitions(entries)}</div></details>'
    )


def main(argv: list[str]) -> None:
    """Writes the report of the one run named; wrong input is one line, exit code 2."""
    try:
        if len(argv) != 1:
            raise InputError("name one run folder: unc_jax.review.runreport RUN")
        print(write_run_report(Path(argv[0])))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
