"""The little Markdown that tables are written in, as markup of a page."""

import re
from collections.abc import Iterator
from itertools import groupby

from unc_jax.review.page import text

_BOLD = re.compile(r"\*\*(.+?)\*\*")


def from_markdown(source: str) -> Iterator[str]:
    """Paragraphs, tables and lists with **bold**; anything else is plain text."""
    lines = source.splitlines()
    for kind, block in groupby(lines, _kind):
        if kind == "table":
            yield _table(list(block))
        elif kind == "list":
            items = "".join(f"<li>{_inline(line[2:])}</li>" for line in block)
            yield f"<ul>{items}</ul>"
        elif kind == "text":
            yield f'<p class="small">{_inline(" ".join(block))}</p>'


def _kind(line: str) -> str:
    if not line.strip():
        return "nothing"
    if line.startswith("|"):
        return "table"
    return "list" if line.startswith("- ") else "text"


def _table(lines: list[str]) -> str:
    head, *rest = [
        [cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines
    ]
    body = [cells for cells in rest if not all(set(cell) <= {"-"} for cell in cells)]
    titles = "".join(f"<th>{_inline(cell)}</th>" for cell in head)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in cells)}</tr>"
        for cells in body
    )
    return (
        '<div class="wider" tabindex="0"><table>'
        f"<thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _inline(source: str) -> str:
    # Escaped first, so that what is bold is markup of ours alone.
    return _BOLD.sub(r"<b>\1</b>", text(source))
