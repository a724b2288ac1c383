"""Worth of uncertainty measures on the test cases: of one run, and over a model's runs.

`summarise` gives the content of a run's summary.json; `appraise` what statistics.json
says of a measure.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data.split import natural_order
from unc_jax.study import cases_table, selective, statistics
from unc_jax.study.cases_table import OK, SPLITS, Row
from unc_jax.study.statistics import RESAMPLES, SEED, spread
from unc_jax.study.tables import UNDEFINED, Table, number
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

# Dice below which a segmentation counts as failed, and above which as good.
DICE_THRESHOLDS = (0.5, 0.7, 0.8, 0.9)
# Those of them that most trained models straddle, shown in the table.
_FLOOR, _FAILURE = 0.7, 0.8


class Scores(NamedTuple):
    """Cases of one run and split as float64 (cases,), in natural order of `ids`."""

    ids: tuple[str, ...]
    dice: np.ndarray
    reference_ml: np.ndarray
    measures: dict[str, np.ndarray]


def scores(rows: Sequence[Row], split: str = "test") -> Scores:
    """Returns the numbers of the cases of one split; what is undefined is NaN."""
    chosen = {str(row["case"]): row for row in rows if row["split"] == split}
    ids = tuple(natural_order(chosen))
    ordered = [chosen[case] for case in ids]
    return Scores(
        ids,
        cases_table.column(ordered, "dice"),
        cases_table.column(ordered, "reference_ml"),
        {name: cases_table.column(ordered, name) for name in MEASURES},
    )


def summarise(
    rows: Sequence[Row], *, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Any]:
    """Returns the content of summary.json, by split; splits without rows are left out.

    Each split: n (rows), n_failed, n_defined (Dice defined), dice {mean, ci95} and
    measures {name: {rho, p, ci95, n}}, the Spearman correlation with Dice over the
    cases where both are defined. ci95 are bootstrap intervals over cases, the same as
    in statistics.json for the same resamples and seed; what is undefined is None.
    """
    result = {}
    for split in SPLITS:
        status = [row["status"] for row in rows if row["split"] == split]
        if status:
            known = scores(rows, split)
            drawn = statistics.resampled_cases(
                known.ids, resamples=resamples, seed=seed
            )
            dice = statistics.estimate_mean(known.dice, drawn)
            result[split] = {
                "n": len(status),
                "n_failed": sum(one != OK for one in status),
                "n_defined": int(np.isfinite(known.dice).sum()),
                "dice": {"mean": dice.value, "ci95": statistics.finding(dice).ci95},
                "measures": {
                    name: _correlation(values, known.dice, drawn)
                    for name, values in known.measures.items()
                },
            }
    return result


def appraise(tests: Sequence[Scores], name: str) -> dict[str, Any]:
    """Returns what the measure `name` is worth on the test cases of a model's runs.

    rho, p and n against Dice; rho given the reference volume, and above each floor of
    Dice; the measure's own rho between runs; AURC, E-AURC, AUGRC; AUROC of failures
    below each threshold of Dice; referral gain, and the referral curve of the first
    run. p is the largest of the runs.
    """
    sign = MEASURES[name].sign
    pairs = [(t.measures[name], t.dice) for t in tests]
    plain = [statistics.spearman(values, dice) for values, dice in pairs]
    areas = [selective.areas(1.0 - dice, sign * values) for values, dice in pairs]
    partial = [
        statistics.partial_spearman(t.measures[name], t.dice, t.reference_ml)
        for t in tests
    ]
    gains = [selective.referral_gain(dice, sign * values) for values, dice in pairs]
    ps = [one.p for one in plain if one.p is not None]
    return {
        "rho": spread([one.rho for one in plain]),
        "p": max(ps) if len(ps) == len(plain) else None,
        "n": [one.n for one in plain],
        "rho_given_reference_volume": spread([one.rho for one in partial]),
        "rho_above_dice": {
            str(floor): _above(pairs, floor) for floor in DICE_THRESHOLDS
        },
        "rho_between_seeds": between([values for values, _ in pairs]),
        "aurc": spread([one.aurc for one in areas]),
        "e_aurc": spread([one.e_aurc for one in areas]),
        "augrc": spread([one.augrc for one in areas]),
        "failure_auroc": {str(t): _failures(pairs, sign, t) for t in DICE_THRESHOLDS},
        "referral_gain": spread(gains),
        # Of the paper's measures only: it has an entry for every case.
        **({"referral": _referral(*pairs[0], sign)} if name in PAPER_MEASURES else {}),
    }


def measures_table(content: dict[str, Any]) -> Table:
    """Returns every measure of every model as a ranking of the test cases.

    content: of statistics.json. Of several seeds also how alike Dice itself ranks the
    cases in two trainings.
    """
    header = (
        *("model", "measure", "rho", "95 %", "between seeds", "given volume"),
        *(f"Dice > {_FLOOR} (n)", "AURC", "E-AURC", "AUGRC"),
        *(f"AUROC Dice < {_FAILURE} (failures)", "referral gain"),
    )
    rows = []
    for model in content["models"]:
        for name, one in model["measures"].items():
            rows.append([model["name"], name, *_ranking(one)])
        own = model["dice"]["test"]["rho_between_seeds"]
        if own is not None:
            known = {"model": model["name"], "measure": "(Dice)"}
            known["between seeds"] = number(own)
            rows.append([known.get(column, "") for column in header])
    return Table(
        "Measures as rankings of the cases",
        header,
        rows,
        "Measures as rankings of the test cases, means over seeds. rho: Spearman's "
        "with Dice; between seeds: of the measure with itself, in two trainings; given "
        "volume: partial, given the reference's volume; "
        f"Dice > {_FLOOR}: over the cases above it, so that a few failures do not make "
        "the result. Areas under the risk-coverage curve (risk: 1 - Dice), over the "
        "best possible one (E-AURC), and of generalised risk (AUGRC): lower is better. "
        f"AUROC: of failures, Dice below {_FAILURE} (number per seed; 0.5 is chance). "
        "Referral gain: what sending the least certain cases to a human gains in mean "
        "Dice of the others, 0 as at random, 1 as by an oracle.",
    )


def between(columns: Sequence[np.ndarray]) -> float | None:
    """Returns the mean of Spearman's rho over the pairs of runs.

    It tells whether trainings order cases alike. What differs between trainings is
    noise, which weakens the tie of a measure to Dice (Spearman, 1904). None for one
    run, or when a pair has no correlation.
    """
    rhos = [statistics.spearman(a, b).rho for a, b in combinations(columns, 2)]
    return spread(rhos)["mean"]


def _correlation(
    values: np.ndarray, dice: np.ndarray, drawn: np.ndarray
) -> dict[str, Any]:
    rho, p, n = statistics.spearman(values, dice)
    found = statistics.finding(statistics.estimate_spearman(values, dice, drawn))
    return {"rho": rho, "p": p, "ci95": found.ci95, "n": n}


def _above(pairs: Sequence[tuple], floor: float) -> dict[str, Any]:
    found = [statistics.spearman_above(v, dice, floor=floor) for v, dice in pairs]
    return {**spread([one.rho for one in found]), "n": [one.n for one in found]}


def _failures(pairs: Sequence[tuple], sign: float, threshold: float) -> dict[str, Any]:
    found = [
        selective.failure_auroc(dice, sign * values, threshold=threshold)
        for values, dice in pairs
    ]
    return {
        **spread([auroc for auroc, _ in found]),
        "failures": [failures for _, failures in found],
    }


def _referral(values: np.ndarray, dice: np.ndarray, sign: float) -> dict[str, Any]:
    curve = selective.referral(dice, sign * values)
    return {name: column.tolist() for name, column in curve._asdict().items()}


def _ranking(one: dict[str, Any]) -> list[str]:
    floor = one["rho_above_dice"][str(_FLOOR)]
    failure = one["failure_auroc"][str(_FAILURE)]
    counts = ", ".join(map(str, failure["failures"]))
    interval = one["ci95"]
    return [
        number(one["rho"]["mean"]),
        UNDEFINED if interval is None else "{:.2f} to {:.2f}".format(*interval),
        number(one["rho_between_seeds"]),
        number(one["rho_given_reference_volume"]["mean"]),
        f"{number(floor['mean'])} ({min(floor['n'])})",
        *(number(one[name]["mean"], ".4f") for name in ("aurc", "e_aurc", "augrc")),
        f"{number(failure['mean'])} ({counts})",
        number(one["referral_gain"]["mean"]),
    ]
