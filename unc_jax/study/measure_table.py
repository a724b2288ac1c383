"""Every measure of every model as a ranking of cases, in one table.

Built from what `comparison.compare` returns.
"""

from typing import Any

from unc_jax.study.tables import UNDEFINED

# Of the thresholds that statistics.json has, those that most trained models straddle.
_FLOOR, _FAILURE = 0.7, 0.8
_COLUMNS = (
    *("model", "measure", "rho", "95 %", "between seeds", "given volume"),
    f"Dice > {_FLOOR} (n)",
    *("AURC", "E-AURC", "AUGRC", f"AUROC Dice < {_FAILURE} (failures)"),
    "referral gain",
)
_CAPTION = (
    "Measures as rankings of the test cases, means over seeds. rho: Spearman's with "
    "Dice; between seeds: of the measure with itself, in two trainings; given volume: "
    "partial, given the reference's volume; "
    f"Dice > {_FLOOR}: over the cases above it, so that a few failures do not make the "
    "result. Areas under the risk-coverage curve (risk: 1 - Dice), over the best "
    "possible one (E-AURC), and of generalised risk (AUGRC): lower is better. AUROC: "
    f"of failures, Dice below {_FAILURE} (number per seed; 0.5 is chance). Referral "
    "gain: what sending the least certain cases to a human gains in mean Dice of the "
    "others, 0 as at random, 1 as by an oracle."
)


def markdown(statistics: dict[str, Any]) -> str:
    """A line per model and measure, in the order of the tables; all seven measures.

    Of several seeds also how alike Dice itself ranks the cases in two trainings.
    What is undefined (no failures, constant values) reads as in the other tables.
    """
    lines = [_line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    for model in statistics["models"]:
        for name, one in model["measures"].items():
            lines.append(_line([model["name"], name, *_cells(one)]))
        own = model["dice"]["test"]["rho_between_seeds"]
        if own is not None:
            lines.append(_dice(model["name"], own))
    return "\n".join([_CAPTION, "", *lines]) + "\n"


def _cells(one: dict[str, Any]) -> list[str]:
    floor, failures = one["rho_above_dice"][str(_FLOOR)], one["failure_auroc"]
    failure = failures[str(_FAILURE)]
    counts = ", ".join(map(str, failure["failures"]))
    interval = one["ci95"]
    return [
        _number(one["rho"]["mean"], 2),
        UNDEFINED if interval is None else "{:.2f} to {:.2f}".format(*interval),
        _number(one["rho_between_seeds"], 2),
        _number(one["rho_given_reference_volume"]["mean"], 2),
        f"{_number(floor['mean'], 2)} ({min(floor['n'])})",
        _number(one["aurc"]["mean"], 4),
        _number(one["e_aurc"]["mean"], 4),
        _number(one["augrc"]["mean"], 4),
        f"{_number(failure['mean'], 2)} ({counts})",
        _number(one["referral_gain"]["mean"], 2),
    ]


def _dice(model: str, between: float) -> str:
    known = {"model": model, "measure": "(Dice)", "between seeds": f"{between:.2f}"}
    return _line([known.get(column, "") for column in _COLUMNS])


def _number(value: float | None, digits: int) -> str:
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def _line(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"
