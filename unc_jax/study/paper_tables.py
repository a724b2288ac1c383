"""Tables 1 and 2 of several models in the paper's rows, beside the paper's figures.

Built from what `comparison.compare` returns. Of several runs (seeds) the cells hold
means, +- the standard deviation over seeds, and the largest p. Best per column is bold
(largest Dice, strongest correlation of the sign that a working measure has), of the
measured and of the paper's rows apart.
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

from unc_jax.study.tables import PAPER, UNDEFINED, PaperRow, format_p
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

_NUMBER = {"liver": 1, "tumor": 2}
_TITLES = {
    "liver": "a whole organ (in the paper the liver)",
    "tumor": "a part of an organ (in the paper liver tumors)",
}
_COLUMNS = (
    *("cost function", "patch size", "source", "seeds", "n"),
    *("mean dice test (training)", "CV (p)", "D_pw (p)", "U_labelled (p)"),
)
_CAPTION = (
    "Table {number}: segmentation models of {title}, measured on {data}. "
    "Spearman correlation coefficient between uncertainty measures and segmentation "
    "quality (Dice), test data. In brackets 95 % bootstrap intervals over cases"
    "{seeds}. n: test cases with both values defined (the paper's test set has 55; it "
    "prints no n). Best per column in bold. Empty cases: {policy}."
)
_CLAIMS = (
    "Compared is strength: Spearman's rho with Dice, its sign turned for CV and "
    "U_labelled, so that a measure that works is positive. p is corrected for all "
    "claims together (Holm, 1979)."
)

_SEEDS = " and seeds; ± standard deviation over seeds; p the largest of the seeds"


def markdown(statistics: dict[str, Any], target: str) -> str:
    """Table 1 (target "liver") or 2 ("tumor"), with a caption.

    Each row of the paper has a measured line and the paper's own below; models that the
    paper does not have follow. A row that was not given reads "not run".
    """
    models = [m for m in statistics["models"] if m["target"] == target]
    best = _best_measured(models)
    best_paper = _best_paper(target)
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    placed = []
    for (paper_target, loss, size), row in PAPER.items():
        if paper_target != target:
            continue
        own = [m for m in models if (m["loss"], m["size"]) == (loss, size)]
        placed += own
        lines += [_measured(model, best) for model in own] or [_not_run(loss, size)]
        lines += [_paper(loss, size, row, best_paper)]
    lines += [_measured(model, best) for model in models if model not in placed]
    several = any(len(model["seeds"]) > 1 for model in models)
    caption = _CAPTION.format(
        number=_NUMBER[target],
        title=_TITLES[target],
        data=", ".join(sorted({model["data"] for model in models})) or "nothing yet",
        seeds=_SEEDS if several else "",
        policy=statistics["empty_cases_policy"],
    )
    note = empty_note(statistics, target)
    return "\n".join([caption, "", *lines, "", *note]).rstrip() + "\n"


def csv_text(statistics: dict[str, Any], target: str) -> str:
    """The table for machines: a line per model, full precision, empty if undefined.

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


def claims_markdown(statistics: dict[str, Any]) -> str:
    """The paper's claims, a sentence each, what is compared, and over what."""
    lines = [f"- {claim['sentence']}" for claim in statistics["claims"]]
    return "\n".join([_CLAIMS, "", *lines, "", statistics["scope"]]) + "\n"


def empty_note(statistics: dict[str, Any], target: str) -> list[str]:
    """Lines on what the policy of empty cases does to each model; [] without any."""
    lines = []
    names = {m["name"] for m in statistics["models"] if m["target"] == target}
    for one in statistics["empty_cases"]:
        if one["name"] not in names or not (
            one["empty_prediction"] or one["empty_reference"]
        ):
            continue
        policies = "; ".join(
            f"{policy}: Dice {_number(one[policy]['dice'])} (n = {one[policy]['n']}), "
            + ", ".join(
                f"{name} {_number(one[policy][name]['rho'])} "
                f"(n = {one[policy][name]['n']})"
                for name in PAPER_MEASURES
            )
            for policy in ("exclude", "zero")
        )
        lines.append(
            f"- {one['name']}: test cases with an empty prediction "
            f"{one['empty_prediction']}, reference {one['empty_reference']}, both "
            f"{one['both_empty']}. {policies}."
        )
    return ["Empty cases (first seed):", "", *lines] if lines else []


def _measured(model: dict[str, Any], best: dict[str, float]) -> str:
    dice = model["dice"]
    test, train = dice["test"], dice["train"]
    value = _number(test["mean"])
    shown = f"**{value}**" if _is_best(test["mean"], best, "dice") else value
    cells = [f"{shown}{_sd(test)} ({_number(train['mean'])}) {_interval(test)}"]
    for name in PAPER_MEASURES:
        one = model["measures"][name]
        rho = one["rho"]["mean"]
        if rho is None:
            cells.append(UNDEFINED)
            continue
        strong = (
            f"**{rho:.2f}**"
            if _is_best(_strength(name, rho), best, name)
            else f"{rho:.2f}"
        )
        cells.append(
            f"{strong}{_sd(one['rho'])} ({format_p(one['p'])}) {_interval(one)}"
        )
    loss = " ".join(filter(None, (model["loss"], model["variant"])))
    size = f"{model['size']} {'x'.join(map(str, model['patch']))}"
    seeds = ", ".join(map(str, model["seeds"]))
    return _line([loss, size, "measured", seeds, _counts(model), *cells])


def _paper(loss: str, size: str, row: PaperRow, best: dict[str, float]) -> str:
    value = f"{row.dice_test:.2f}"
    value = f"**{value}**" if row.dice_test == best["dice"] else value
    cells = [f"{value} ({row.dice_train:.2f})"]
    for name in PAPER_MEASURES:
        rho, p = getattr(row, name)
        shown = f"**{rho:.2f}**" if abs(rho) == best[name] else f"{rho:.2f}"
        cells.append(f"{shown} ({format_p(p)})")
    return _line([loss, size, "paper", "", "", *cells])


def _not_run(loss: str, size: str) -> str:
    return _line([loss, size, "measured", "", "", "not run", "", "", ""])


def _best_measured(models: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Largest value per column; a single model is not best of anything."""
    if len(models) < 2:
        return {}
    columns = {"dice": [model["dice"]["test"]["mean"] for model in models]}
    for name in PAPER_MEASURES:
        rhos = [model["measures"][name]["rho"]["mean"] for model in models]
        columns[name] = [None if rho is None else _strength(name, rho) for rho in rhos]
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


def _strength(name: str, rho: float) -> float:
    return MEASURES[name].sign * rho


def _counts(model: dict[str, Any]) -> str:
    """One number where all agree, else of Dice, CV, D_pw, U_labelled (fewest seed)."""
    counts = [min(model["dice"]["test"]["n"])]
    counts += [min(model["measures"][name]["n"]) for name in PAPER_MEASURES]
    return str(counts[0]) if len(set(counts)) == 1 else " / ".join(map(str, counts))


def _flat(model: dict[str, Any]) -> dict[str, Any]:
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


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.2f}"


def _sd(one: dict[str, Any]) -> str:
    return "" if one["sd"] is None else f" ± {one['sd']:.2f}"


def _interval(one: dict[str, Any]) -> str:
    return "" if one["ci95"] is None else "[{:.2f}, {:.2f}]".format(*one["ci95"])


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.strip() for cell in cells) + " |"
