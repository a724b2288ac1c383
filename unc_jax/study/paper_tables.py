"""Tables 1 and 2 of the paper: of several models, and one run beside the paper.

Of several runs (seeds) the cells hold means, +- the standard deviation over seeds, and
the largest p. A line of such a table is a dict by column, "dice" and PAPER_MEASURES, of
(value, training Dice or p), in lines of our own followed by (sd over seeds, ci95).
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

from unc_jax.study import cases_table, split_half
from unc_jax.study.paper_numbers import PAPER, Line, patch_size
from unc_jax.study.run_folder import EMPTY_CASES
from unc_jax.study.tables import UNDEFINED, Cell, Strong, Table, format_p, number
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

Statistics = dict[str, Any]  # content of statistics.json

_SIGNS = {"dice": 1, **{name: MEASURES[name].sign for name in PAPER_MEASURES}}
_HEADER = (
    "mean dice test (training)",
    *(f"{MEASURES[name].label} (p)" for name in PAPER_MEASURES),
)
_TITLES = {
    "liver": ("Table 1", "a whole organ (in the paper the liver)", "Whole organ"),
    "tumor": (
        *("Table 2", "a part of an organ (in the paper liver tumors)"),
        "Part of an organ",
    ),
}


def run_table(
    summary: dict[str, Any],
    *,
    loss: str,
    patch: Sequence[int],
    shape: Sequence[int],
    target: str,
    name: str = "this run",
) -> Table:
    """Returns a run's row in the paper's columns, and the paper's row of that model.

    patch, shape: of the training patch and of the volume; their ratio decides whether
    the paper's large or small patches stand beside it (`paper_numbers.patch_size`).
    summary: content of summary.json. Correlations are Spearman's with Dice over the
    test cases, p values in brackets; n is the number of cases with both values,
    smallest over the measures. The paper gives no n: its test set has 55 cases, of
    which some may be undefined. The last column has the reliability of each measure
    (`split_half`). Undefined or missing values are n/a.
    """
    test, train = summary.get("test"), summary.get("train")
    line: Line = {name: (None, None) for name in _SIGNS}
    counts = reliability = UNDEFINED
    if test:
        found = {one: test["measures"][one] for one in PAPER_MEASURES}
        line |= {one: (own["rho"], own["p"]) for one, own in found.items()}
        counts = str(min(own["n"] for own in found.values()))
        reliability = split_half.cell_of_paper_measures(found)
    line["dice"] = tuple(one and one["dice"]["mean"] for one in (test, train))
    size = patch_size(patch, shape)
    shown = f"{size} {'x'.join(map(str, patch))}"
    rows = [[f"{name} ({target})", loss, shown, *_cells(line), counts, reliability]]
    if paper := PAPER.get((target, loss, size)):
        beside = [f"paper ({target})", loss, size, *_cells(paper)]
        rows.append([*beside, UNDEFINED, UNDEFINED])
    header = ("source", "cost function", "patch size", *_HEADER, "n", split_half.HEADER)
    return Table("Beside the paper", header, rows)


def paper_table(statistics: Statistics, target: str) -> Table:
    """Returns Table 1 (target "liver") or 2 ("tumor").

    Each of the paper's models has a measured row, "not run" if missing, followed by the
    paper's row; other models follow. The best value per column is bold (largest Dice,
    strongest correlation of the expected sign), separately for measured rows and for
    the paper's.
    """
    models = [m for m in statistics["models"] if m["target"] == target]
    paper = {key[1:]: line for key, line in PAPER.items() if key[0] == target}
    best, best_paper = _best(list(map(_line, models))), _best(list(paper.values()))
    rows: list[list[Cell]] = []
    for (loss, size), line in paper.items():
        own = [m for m in models if (m["loss"], m["size"]) == (loss, size)]
        missing: list[Cell] = [loss, size, "measured", "", "", "not run", *[""] * 4]
        rows += [_measured(model, best) for model in own] or [missing]
        rows.append([loss, size, "paper", "", "", *_cells(line, best_paper), ""])
    others = [m for m in models if (m["loss"], m["size"]) not in paper]
    rows += [_measured(model, best) for model in others]
    name, kind, title = _TITLES[target]
    data = ", ".join(sorted({model["data"] for model in models})) or "nothing yet"
    several = any(len(model["seeds"]) > 1 for model in models)
    joined = max((model["folds"] for model in models), default=0)
    folds = f" {joined} folds joined: each case is a test case once." if joined else ""
    seeds = " and seeds; ± standard deviation over seeds; p the largest of the seeds"
    ensembles = any(model["source"] for model in models)
    once = " An ensemble is one model of all its seeds: its intervals are over cases."
    notes = _empty_notes(statistics, {model["name"] for model in models})
    return Table(
        title,
        (
            "cost function",
            "patch size",
            "source",
            "seeds",
            "n",
            *_HEADER,
            split_half.HEADER,
        ),
        rows,
        f"{name}: segmentation models of {kind}, measured on {data}. Spearman "
        "correlation coefficient between uncertainty measures and segmentation quality "
        "(Dice), test data. In brackets 95 % bootstrap intervals over cases"
        f"{seeds if several else ''}.{once if ensembles else ''} n: test cases with "
        "both values defined (the paper's test set has 55; it prints no n)."
        f"{folds} Reliability: expected correlation of a measure with the same measure "
        "of N other samples, 0 to 1; rho is not expected to exceed its square root. "
        "Best per column in bold. "
        f"Empty cases: {statistics['empty_cases_policy']}.",
        "Empty cases (first seed):" if notes else "",
        notes,
    )


def csv_text(statistics: Statistics, target: str) -> str:
    """Returns Table 1 or 2 as CSV: a line per model, full precision, undefined empty.

    Columns: model, loss, size, patch, seeds, n_test, n_dice; dice_test and _low, _high,
    _sd, dice_train; per measure _rho, _low, _high, _sd, _p, _n, _reliability; the
    paper's as paper_*.
    """
    text = io.StringIO(newline="")
    rows = [_flat(m) for m in statistics["models"] if m["target"] == target]
    writer = csv.DictWriter(text, rows[0] if rows else ["model"], lineterminator="\n")
    writer.writeheader()
    for row in rows:  # a model has the name of its folder, which may be anything
        writer.writerow({name: cases_table.to_field(v) for name, v in row.items()})
    return text.getvalue()


def _line(model: dict[str, Any]) -> Line:
    """Returns the line of a model of statistics.json."""
    test, train = model["dice"]["test"], model["dice"]["train"]
    line: Line = {"dice": (test["mean"], train["mean"], test["sd"], test["ci95"])}
    for name in PAPER_MEASURES:
        one = model["measures"][name]
        line[name] = (one["rho"]["mean"], one["p"], one["rho"]["sd"], one["ci95"])
    return line


def _measured(model: dict[str, Any], best: dict[str, float]) -> list[Cell]:
    # One n where all agree, else of Dice and each measure.
    counts = [min(model["dice"]["test"]["n"])]
    counts += [min(model["measures"][name]["n"]) for name in PAPER_MEASURES]
    counts = counts[:1] if len(set(counts)) == 1 else counts
    loss = " ".join(filter(None, (model["loss"], model["unusual"])))
    size = f"{model['size']} {'x'.join(map(str, model['patch']))}"
    seeds, n = ", ".join(map(str, model["seeds"])), " / ".join(map(str, counts))
    source = ": ".join(filter(None, ("measured", model["source"])))
    reliability = split_half.cell_of_paper_measures(model["measures"])
    return [loss, size, source, seeds, n, *_cells(_line(model), best), reliability]


def _cells(line: Line, best: dict[str, float] | None = None) -> list[Cell]:
    cells = []
    for name, sign in _SIGNS.items():
        value, beside, *rest = line.get(name, (None, None))
        if value is None and name != "dice":
            cells.append(UNDEFINED)
            continue
        sd, ci95 = rest or (None, None)
        text = "" if sd is None else f" ± {sd:.2f}"
        text += f" ({number(beside) if name == 'dice' else format_p(beside)})"
        text += "" if ci95 is None else " [{:.2f}, {:.2f}]".format(*ci95)
        strong = value is not None and sign * value == (best or {}).get(name)
        cells.append(Strong(number(value), text) if strong else number(value) + text)
    return cells


def _best(lines: Sequence[Line]) -> dict[str, float]:
    """Returns the best value per column, signed so that higher is better.

    A column has none with a single line, or if no value has the expected sign.
    """
    best = {}
    for name, sign in _SIGNS.items():
        found = [line[name][0] for line in lines if name in line]
        values = [sign * one for one in found if one is not None]
        if len(lines) > 1 and max(values, default=0) > 0:
            best[name] = max(values)
    return best


def _empty_notes(statistics: Statistics, names: set[str]) -> list[str]:
    """Returns a note on each model with empty cases: numbers under both policies."""
    notes = []
    for one in statistics["empty_cases"]:
        if one["name"] not in names:
            continue
        if one["empty_prediction"] or one["empty_reference"]:
            policies = []
            for policy in EMPTY_CASES:
                own = one[policy]
                rhos = ", ".join(
                    f"{name} {number(own[name]['rho'])} (n = {own[name]['n']})"
                    for name in PAPER_MEASURES
                )
                dice = f"{number(own['dice'])} (n = {own['n']})"
                policies.append(f"{policy}: Dice {dice}, {rhos}")
            notes.append(
                f"{one['name']}: test cases with an empty prediction "
                f"{one['empty_prediction']}, reference {one['empty_reference']}, both "
                f"{one['both_empty']}. {'; '.join(policies)}."
            )
    return notes


def _flat(model: dict[str, Any]) -> dict[str, Any]:
    row = {
        "model": model["name"],
        "loss": model["loss"],
        "size": model["size"],
        "patch": "x".join(map(str, model["patch"])),
        "seeds": " ".join(map(str, model["seeds"])),
        "n_test": model["n_test"],
        "n_dice": min(model["dice"]["test"]["n"]),
    }
    for name, (value, beside, sd, ci95) in _line(model).items():
        low, high = ci95 or (None, None)
        start = "dice_test" if name == "dice" else name
        row["dice_test" if name == "dice" else f"{name}_rho"] = value
        row |= {f"{start}_low": low, f"{start}_high": high, f"{start}_sd": sd}
        if name == "dice":
            row["dice_train"] = beside
        else:
            own = model["measures"][name]
            row |= {f"{name}_p": beside, f"{name}_n": min(own["n"])}
            row[f"{name}_reliability"] = (own["reliability"] or {}).get("value")
    paper = PAPER.get((model["target"], model["loss"], model["size"]), {})
    for name in _SIGNS:
        ends = ("test", "train") if name == "dice" else ("rho", "p")
        for end, value in zip(ends, paper.get(name, (None, None)), strict=True):
            row[f"paper_{name}_{end}"] = value
    return row
