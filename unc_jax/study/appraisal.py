"""What a measure of uncertainty is worth on the test cases, in every way reported."""

from collections.abc import Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data.split import natural_order
from unc_jax.study import cases_table, run_folder, selective, statistics
from unc_jax.study.run_folder import Run
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

# Dice below which a segmentation counts as failed, and above which as good.
DICE_THRESHOLDS = (0.5, 0.7, 0.8, 0.9)


class Scores(NamedTuple):
    """The test cases of one run as float64 (cases,), in natural order of `ids`."""

    ids: tuple[str, ...]
    dice: np.ndarray
    reference_ml: np.ndarray
    measures: dict[str, np.ndarray]


def scores(run: Run, policy: str = "exclude") -> Scores:
    """The test cases of `run`, empty ones under `policy` (see `with_empty_cases`)."""
    rows = run_folder.with_empty_cases(run.rows, policy)
    test = {str(row["case"]): row for row in rows if row["split"] == "test"}
    ids = tuple(natural_order(test))
    ordered = [test[case] for case in ids]
    return Scores(
        ids,
        cases_table.column(ordered, "dice"),
        cases_table.column(ordered, "reference_ml"),
        {name: cases_table.column(ordered, name) for name in MEASURES},
    )


def appraise(tests: Sequence[Scores], name: str) -> dict[str, Any]:
    """What the measure `name` is worth on the test cases of each run of a model.

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
    return {
        "rho": spread([one.rho for one in plain]),
        "p": _largest([one.p for one in plain]),
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


def between(columns: Sequence[np.ndarray]) -> float | None:
    """Mean of Spearman's rho over the pairs of runs: do trainings order cases alike?

    What differs between trainings is noise, which weakens the tie of a measure to Dice
    (Spearman, 1904). None for one run, or when a pair has no correlation.
    """
    rhos = [statistics.spearman(a, b).rho for a, b in combinations(columns, 2)]
    return spread(rhos)["mean"]


def spread(values: Sequence[float | None]) -> dict[str, Any]:
    """Mean and standard deviation (n - 1) over runs; undefined if one of them is."""
    defined = [value for value in values if value is not None]
    whole = len(defined) == len(values) and len(values) > 0
    return {
        "mean": float(np.mean(defined)) if whole else None,
        "sd": float(np.std(defined, ddof=1)) if whole and len(values) > 1 else None,
        "by_seed": list(values),
    }


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
    """The curve of the first run."""
    curve = selective.referral(dice, sign * values)
    return {name: column.tolist() for name, column in curve._asdict().items()}


def _largest(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return max(defined) if len(defined) == len(values) else None
