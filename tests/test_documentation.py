"""Numbers, links and commands of the pages agree with their sources."""

import ast
import json
import re
from pathlib import Path

import pytest

from unc_jax import plan
from unc_jax.review import dice_map, quality, rule, verdict
from unc_jax.study import case_columns, cases_table
from unc_jax.uncertainty.measures import PAPER_MEASURES

ROOT = Path(__file__).parents[1]
FULL_SIZE = "synthetic_full/runs/liver_large_wcc"
CODE = ("unc_jax", "launch", "benchmarks")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def numbers(run: str) -> str:
    """Returns what the test cases of a committed run gave, as a line of the README."""
    test = json.loads((ROOT / "results" / run / "summary.json").read_text())["test"]
    rho = [test["measures"][name]["rho"] for name in PAPER_MEASURES]
    cells = [str(test["n"]), *(f"{one:.2f}" for one in (test["dice"]["mean"], *rho))]
    return f"| {' | '.join(cells)} |"


def text(page: Path) -> str:
    return " ".join(page.read_text(encoding="utf-8").split())


def test_readme_quotes_the_demo():
    assert numbers("demo") in text(ROOT / "README.md")


def test_readme_quotes_the_ranges_of_the_models_at_full_size():
    runs = sorted((ROOT / "results" / FULL_SIZE).parent.glob("liver_*"))
    assert len(runs) > 1
    found = [numbers(str(run.relative_to(ROOT / "results"))) for run in runs]
    columns = zip(*(row.strip("| ").split(" | ") for row in found), strict=True)
    n, *values = (
        sorted(set(column), key=lambda x: abs(float(x))) for column in columns
    )
    cells = [*n, *(f"{column[0]} to {column[-1]}" for column in values)]
    assert f"| {' | '.join(cells)} |" in text(ROOT / "README.md")


def test_readme_quotes_the_tumours_at_full_size():
    folder = str(Path(FULL_SIZE).parent)
    found = [numbers(f"{folder}/tumor_large_{loss}") for loss in ("dice", "wcc")]
    soft_dice, wcc = (row.strip("| ").split(" | ")[1:] for row in found)
    pairs = (f"{one}, {other}" for one, other in zip(soft_dice, wcc, strict=True))
    row = f"its tumours, soft Dice and wcc | 55 | {' | '.join(pairs)} |"
    assert row in text(ROOT / "README.md")


def test_readme_says_what_the_raters_find():
    path = ROOT / "results/demo/raters/cases.csv"
    rows = cases_table.read_rows(path, case_columns.REVIEW_COLUMNS)
    flagged = {row["case"] for row in rows if row["flag"] == "yes"}
    failed = {row["case"] for row in rows if float(row["dice"] or 0) < 0.9}
    assert failed <= flagged
    words = f"flags {len(flagged)} of the demo's {len(rows)} scans, among them all "
    assert f"{words}{len(failed)} with a Dice below 0.9" in text(ROOT / "README.md")


def test_docs_quote_the_demo():
    test = json.loads((ROOT / "results/demo/summary.json").read_text())["test"]
    rho = [f"{test['measures'][name]['rho']:.2f}" for name in PAPER_MEASURES]
    row = f"| {test['dice']['mean']:.3f} | {' | '.join(rho)} |"
    assert f"| 0 ([results/demo](../results/demo/table.md)) {row}" in text(
        ROOT / "docs" / "statistics.md"
    )


def test_a_plan_quotes_the_reliabilities_of_the_demo():
    test = json.loads((ROOT / "results/demo/summary.json").read_text())["test"]
    known = [test["measures"][one]["reliability"]["value"] for one in PAPER_MEASURES]
    cv, d_pw, u_labelled = (f"{one:.2f}" for one in known)
    assert f"{cv} (CV), {d_pw} (D_pw) and {u_labelled} (U_labelled)" in plan._UNKNOWN
    assert f"{cv}, {d_pw} and {u_labelled}" in text(ROOT / "docs" / "statistics.md")


def worst_fifth(folder: Path) -> dict:
    """Returns what a review of the fifth with the lowest predicted Dice finds."""
    rows = cases_table.read_rows(folder / "cases.csv", case_columns.EVALUATION_COLUMNS)
    model = quality.fit(rows)
    test = [
        {**row, "predicted_dice": dice_map.map_dice(model.map, row), "unlike": ""}
        for row in rows
        if row["split"] == "test"
    ]
    worst = rule.worst(test, 0.2, {"": model})
    flagged = [index in worst for index in range(len(test))]
    found = verdict.worst_found(cases_table.column(test, "dice"), flagged)
    return {"cases": len(test), **found}


def test_readme_says_what_a_review_of_the_worst_fifth_finds():
    runs = (ROOT / "results" / FULL_SIZE).parent
    livers = [worst_fifth(run) for run in sorted(runs.glob("liver_*"))]
    soft_dice, wcc = (worst_fifth(run) for run in sorted(runs.glob("tumor_*")))
    counts = sorted(one["found"] for one in livers)
    one = livers[0]
    words = f"the fifth of {one['cases']} test scans with the lowest predicted Dice "
    words += f"finds {counts[0]} to {counts[-1]} of the {one['worst']} worst livers "
    words += f"(four models; {one['found_by_chance']:.0f} by chance), and "
    words += f"{soft_dice['found']} and {wcc['found']} of the {one['worst']} worst "
    words += "tumours, which two models segment badly."
    assert len(livers) == 4
    assert words in text(ROOT / "README.md")


def test_the_paper_stands_alike_in_docs_and_configs():
    page = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    table = re.findall(r"\| `((?:liver|tumor)_\w+_\w+)` \| (.*) \|", page)
    assert len(table) == 6
    for name, cells in table:
        dice, cv, d_pw, u_labelled = cells.split(" | ")[:4]
        source = text(ROOT / "configs" / f"{name}.py")
        assert f"Dice test (training) {dice} (" in source
        assert f"rho CV {cv}, D_pw {d_pw}, U_labelled {u_labelled}." in source


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_files_exist(page):
    words = page.read_text(encoding="utf-8")
    for module in re.findall(r"python -m (unc_jax[\w.]*)", words):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    for name in re.findall(r"(?:configs|launch)/\w+\.\w+", words):
        assert (ROOT / name).is_file(), name


def test_the_places_to_change_something_exist():
    table = PAGES[0].read_text(encoding="utf-8").partition("| to change |")[2]
    rows = table.split("\n\n")[0].splitlines()[2:]
    places = [re.search(r"`((?!configs)[a-z_]+/[\w./]+)`", row) for row in rows]
    found = {place[1]: row for place, row in zip(places, rows, strict=True) if place}
    assert len(found) >= 6
    for name, row in found.items():
        path = ROOT / "unc_jax" / name
        assert path.exists(), name
        for symbol in re.findall(r"\b[A-Z]{5,}\b", row):
            assert f"\n{symbol}" in path.read_text(encoding="utf-8"), row


@pytest.mark.parametrize(
    "path",
    sorted(one for name in CODE for one in (ROOT / name).rglob("*.py")),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_docstrings_of_functions_start_with_a_verb(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef) and (text := ast.get_docstring(node)):
            assert re.match(r"[A-Z][a-z]+s\b", text), f"{node.name}: {text}"


def test_readme_fits_a_sitting():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 150


def test_any_reader_finds_the_cases_of_the_committed_tables():
    """A byte order mark would be part of the name of the first column."""
    tables = sorted((ROOT / "results").rglob("cases.csv"))
    assert len(tables) > 1
    assert [path for path in tables if not path.read_bytes().startswith(b"case,")] == []
