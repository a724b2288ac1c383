"""Tables as data, read from the Markdown that they were written as."""

import re
from pathlib import Path
from typing import NamedTuple

TABLES = {
    "table1.md": "Whole organ",
    "table2.md": "Part of an organ",
    "claims.md": "The paper's claims",
    "measures.md": "Measures as rankings of the cases",
    "voxels.md": "Voxels",
}


class Section(NamedTuple):
    title: str
    caption: str
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def section(title: str, source: str) -> Section:
    """Returns the table of a file, with the text before it and the list after it."""
    lines = source.splitlines()
    cells = [
        [cell.strip() for cell in line.strip().strip("|").split("|")]
        for line in lines
        if line.startswith("|")
    ]
    body = [row for row in cells if not all(set(cell) <= {"-"} for cell in row)]
    notes = [line[2:] for line in lines if line.startswith("- ")]
    plain = [line for line in lines if line.strip() and line[:2] not in ("- ", "| ")]
    return Section(title, " ".join(plain), (body or [[]])[0], body[1:], notes)


def cell_parts(cell: str) -> list[tuple[str, bool]]:
    """Returns the pieces of a cell, each with whether it is bold."""
    return [
        (text, bool(i % 2)) for i, text in enumerate(re.split(r"\*\*", cell)) if text
    ]


def sections(output: Path) -> list[Section]:
    """Returns the tables that a comparison wrote."""
    return [
        section(title, (output / name).read_text("utf-8"))
        for name, title in TABLES.items()
        if (output / name).is_file()
    ]
