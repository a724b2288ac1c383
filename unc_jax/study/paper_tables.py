"""Tables 1 and 2 of several models in the paper's rows, beside the paper's figures.

Built from what `comparison.compare` returns. Of several runs (seeds) the cells hold
means, +- the standard deviation over seeds, and the largest p.
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

from unc_jax.study.tables import (
    PAPER,
    UNDEFINED,
    Cell,
    PaperRow,
    Strong,
    Table,
    format_p,
    measure_columns,
    number,
)
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

Statistics = dict[str, Any]  # content of statistics.json
Model = dict[str, Any]  # an entry of its "models"

_TITLES = {
    "liver": ("Table 1", "a whole organ (in the paper the liver)", "Whole organ"),
    "tumor": (
        "Table 2",
        "a part of an organ (in the paper liver tumors)",
        "Part of an organ",
    ),
}


def paper_table(statistics: Statistics, target: str) -> Table:
    """Returns Table 1 (target "liver") or 2 ("tumor").

    Each row of the paper has a measured line and the paper's own below; models that the
    paper does not have follow. A row that was not given reads "not run". Best per
    column is bold (largest Dice, strongest correlation of the sign that a working
    measure has), of the measured and of the paper's rows apart.
    """
    models = [m for m in statistics["models"] if m["target"] == target]
    best, best_paper = _best_measured(models), _best_paper(target)
    rows, placed = [], []
    for (paper_target, loss, size), row in PAPER.items():
        if paper_target == target:
            own = [m for m in models if (m["loss"], m["size"]) == (loss, size)]
            placed += own
            missing = [loss, size, "measured", "", "", "not run", "", "", ""]
            rows += [_measured(model, best) for model in own] or [missing]
            rows.append(_paper(loss, size, row, best_paper))
    rows += [_measured(model, best) for model in models if model not in placed]
    name, kind, title = _TITLES[target]
    data = ", ".join(sorted({model["data"] for model in models})) or "nothing yet"
    several = any(len(model["seeds"]) > 1 for model in models)
    seeds = " and seeds; ± standard deviation over seeds; p the largest of the seeds"
    notes = _empty_notes(statistics, {model["name"] for model in models})
    return Table(
        title,
        (
            *("cost function", "patch size", "source", "seeds", "n"),
            *("mean dice test (training)", *measure_columns()),
        ),
        rows,
        f"{name}: segmentation models of {kind}, measured on {data}. Spearman "
        "correlation coefficient between uncertainty measures and segmentation quality "
        "(Dice), test data. In brackets 95 % bootstrap intervals over cases"
        f"{seeds if several else ''}. n: test cases with both values defined (the "
        "paper's test set has 55; it prints no n). Best per column in bold. Empty "
        f"cases: {statistics['empty_cases_policy']}.",
        "Empty cases (first seed):" if notes else "",
        notes,
    )


def csv_text(statistics: Statistics, target: str) -> str:
    """Returns Table 1 or 2 as CSV: a line per model, full precision, undefined empty.

    Columns: model, loss, size, patch, seeds, n_test; dice_test and _low, _high, _sd,
    dice_train; per measure _rho, _low, _high, _sd, _p, _n; the paper's as paper_*.
    """
    text = io.StringIO(newline="")
    rows = [_flat(m) for m in statistics["models"] if m["target"] == target]
    names = list(rows[0]) if rows else ["model"]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: "" if v is None else v for k, v in row.items()})
    return text.getvalue()


def _measured(model: Model, best: dict[str, float]) -> list[Cell]:
    test, train = model["dice"]["test"], model["dice"]["train"]
    cells = [
        _cell(
            test["mean"],
            _is_best(test["mean"], best, "dice"),
            f"{_sd(test)} ({number(train['mean'])}) {_interval(test)}",
        )
    ]
    for name in PAPER_MEASURES:
        one = model["measures"][name]
        rho = one["rho"]["mean"]
        if rho is None:
            cells.append(UNDEFINED)
            continue
        strong = _is_best(MEASURES[name].sign * rho, best, name)
        rest = f"{_sd(one['rho'])} ({format_p(one['p'])}) {_interval(one)}"
        cells.append(_cell(rho, strong, rest))
    loss = " ".join(filter(None, (model["loss"], model["variant"])))
    size = f"{model['size']} {'x'.join(map(str, model['patch']))}"
    seeds = ", ".join(map(str, model["seeds"]))
    return [loss, size, "measured", seeds, _counts(model), *cells]


def _paper(loss: str, size: str, row: PaperRow, best: dict[str, float]) -> list[Cell]:
    strong = row.dice_test == best["dice"]
    cells = [_cell(row.dice_test, strong, f" ({row.dice_train:.2f})")]
    for name in PAPER_MEASURES:
        rho, p = getattr(row, name)
        cells.append(_cell(rho, abs(rho) == best[name], f" ({format_p(p)})"))
    return [loss, size, "paper", "", "", *cells]


def _cell(value: float | None, strong: bool, rest: str) -> Cell:
    rest = rest.rstrip()
    return Strong(number(value), rest) if strong else number(value) + rest


def _best_measured(models: Sequence[Model]) -> dict[str, float]:
    """Returns the largest value per column; a single model is not best of anything."""
    if len(models) < 2:
        return {}
    columns = {"dice": [model["dice"]["test"]["mean"] for model in models]}
    for name in PAPER_MEASURES:
        rhos = [model["measures"][name]["rho"]["mean"] for model in models]
        sign = MEASURES[name].sign
        columns[name] = [None if rho is None else sign * rho for rho in rhos]
    kept = {name: [v for v in c if v is not None] for name, c in columns.items()}
    return {name: max(column) for name, column in kept.items() if column}


def _best_paper(target: str) -> dict[str, float]:
    rows = [row for (of, _, _), row in PAPER.items() if of == target]
    best = {
        name: max(abs(getattr(row, name)[0]) for row in rows) for name in PAPER_MEASURES
    }
    return {"dice": max(row.dice_test for row in rows), **best}


def _is_best(value: float | None, best: dict[str, float], name: str) -> bool:
    # The least wrong of useless measures is not marked.
    return value is not None and value > 0 and value == best.get(name)


def _counts(model: Model) -> str:
    """Returns n, one number where all agree, else of Dice and each measure."""
    counts = [min(model["dice"]["test"]["n"])]
    counts += [min(model["measures"][name]["n"]) for name in PAPER_MEASURES]
    return str(counts[0]) if len(set(counts)) == 1 else " / ".join(map(str, counts))


def _empty_notes(statistics: Statistics, names: set[str]) -> list[str]:
    """Returns what the policy of empty cases does to each model that has such cases."""
    notes = []
    for one in statistics["empty_cases"]:
        empty = one["empty_prediction"] or one["empty_reference"]
        if one["name"] in names and empty:
            policies = "; ".join(
                f"{policy}: Dice {number(one[policy]['dice'])} "
                f"(n = {one[policy]['n']}), "
                + ", ".join(
                    f"{name} {number(one[policy][name]['rho'])} "
                    f"(n = {one[policy][name]['n']})"
                    for name in PAPER_MEASURES
                )
                for policy in ("exclude", "zero")
            )
            notes.append(
                f"{one['name']}: test cases with an empty prediction "
                f"{one['empty_prediction']}, reference {one['empty_reference']}, both "
                f"{one['both_empty']}. {policies}."
            )
    return notes


def _flat(model: Model) -> dict[str, Any]:
    test = model["dice"]["test"]
    low, high = test["ci95"] or (None, None)
    row = {
        "model": model["name"],
        "loss": model["loss"],
        "size": model["size"],
        "patch": "x".join(map(str, model["patch"])),
        "seeds": " ".join(map(str, model["seeds"])),
        "n_test": model["n_test"],
        "n_dice": min(test["n"]),
        "dice_test": test["mean"],
        "dice_test_low": low,
        "dice_test_high": high,
        "dice_test_sd": test["sd"],
        "dice_train": model["dice"]["train"]["mean"],
    }
    for name in PAPER_MEASURES:
        one = model["measures"][name]
        low, high = one["ci95"] or (None, None)
        row |= {
            f"{name}_rho": one["rho"]["mean"],
            f"{name}_low": low,
            f"{name}_high": high,
            f"{name}_sd": one["rho"]["sd"],
            f"{name}_p": one["p"],
            f"{name}_n": min(one["n"]),
        }
    paper = PAPER.get((model["target"], model["loss"], model["size"]))
    row["paper_dice_test"] = paper and paper.dice_test
    row["paper_dice_train"] = paper and paper.dice_train
    for name in PAPER_MEASURES:
        rho, p = getattr(paper, name) if paper else (None, None)
        row |= {f"paper_{name}_rho": rho, f"paper_{name}_p": p}
    return row


def _sd(one: dict[str, Any]) -> str:
    return "" if one["sd"] is None else f" ± {one['sd']:.2f}"


def _interval(one: dict[str, Any]) -> str:
    return "" if one["ci95"] is None else "[{:.2f}, {:.2f}]".format(*one["ci95"])
