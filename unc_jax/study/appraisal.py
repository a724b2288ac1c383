"""Worth of uncertainty measures on the test cases: of one run, and over a model's runs.

`summarise` gives the content of a run's summary.json; `appraise` what statistics.json
says of a measure.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from unc_jax.data.split import natural_order
from unc_jax.study import cases_table, selective, split_half, statistics
from unc_jax.study.cases_table import SPLITS, Row, column
from unc_jax.study.statistics import RESAMPLES, SEED, spread
from unc_jax.study.tables import Table, interval, number
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

# Dice below which a segmentation counts as failed, and above which as good.
DICE_THRESHOLDS = (0.5, 0.7, 0.8, 0.9)
# Those of them that most trained models straddle, shown in the table.
_FLOOR, _FAILURE = 0.7, 0.8
FEWEST_FAILURES = 5  # fewer say nothing: of 4, all found, the interval is 0.4 to 1


def rows_of_split(rows: Sequence[Row], split: str = "test") -> list[Row]:
    """Returns the rows of one split, in natural order of their cases."""
    chosen = {str(row["case"]): row for row in rows if row["split"] == split}
    return [chosen[case] for case in natural_order(chosen)]


def resampled(
    rows: Sequence[Row], resamples: int = RESAMPLES, seed: int = SEED
) -> np.ndarray:
    """Draws the rows' cases: their indices, int (resamples, cases)."""
    ids = [str(row["case"]) for row in rows]
    return statistics.resampled_cases(ids, resamples=resamples, seed=seed)


def summarise(
    rows: Sequence[Row], *, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Any]:
    """Returns the content of summary.json, by split; splits without rows are left out.

    Each split: n (rows), n_failed, n_defined (Dice defined), dice {mean, ci95} and
    measures {name: {rho, p, ci95, n, reliability}}, the Spearman correlation with Dice
    over the cases where both are defined, and `split_half.describe`. ci95 are bootstrap
    intervals over cases, the same as in statistics.json for the same resamples and
    seed; what is undefined is None.
    """
    result = {}
    for split in SPLITS:
        own = rows_of_split(rows, split)
        if own:
            drawn = resampled(own, resamples, seed)
            dice = column(own, "dice")
            mean = statistics.estimate_mean(dice, drawn)
            samples = split_half.samples_of(own)
            result[split] = {
                "n": len(own),
                "n_failed": sum(cases_table.is_failed(row) for row in own),
                "n_defined": int(np.isfinite(dice).sum()),
                "dice": {
                    "mean": mean.value,
                    "ci95": statistics.finding(mean)["ci95"],
                },
                "measures": {
                    name: {
                        **statistics.correlate(column(own, name), dice, drawn),
                        "reliability": split_half.describe(
                            split_half.estimate(own, name, drawn), samples
                        ),
                    }
                    for name in MEASURES
                },
            }
    return result


def appraise(tests: Sequence[list[Row]], name: str) -> dict[str, Any]:
    """Returns the worth of the measure `name` on the test cases of a model's runs.

    rho, p and n against Dice; rho given the reference volume, above each floor of Dice,
    and in the worse and the better half of the cases (Dice below, and not below, the
    median); the measure's own rho between runs; AURC, E-AURC, AUGRC; AUROC of failures
    below each threshold of Dice; referral gain, and the referral curve of the first
    run. p is the largest of the runs.
    """
    values, dice, volumes = (
        [column(rows, own) for rows in tests] for own in (name, "dice", "reference_ml")
    )
    confidence = [MEASURES[name].sign * one for one in values]
    plain = list(map(statistics.spearman, values, dice))
    partial = map(statistics.partial_spearman, values, dice, volumes)
    areas = list(map(selective.areas, [1.0 - one for one in dice], confidence))
    ps = [one.p for one in plain if one.p is not None]
    known = [one[np.isfinite(one)] for one in dice]
    medians = [float(np.median(one)) if len(one) else np.nan for one in known]

    def within(**ends: Sequence[float]) -> dict[str, Any]:
        """Returns rho over the cases between the ends of Dice, each one per run."""
        found = [
            statistics.spearman_within(x, y, **dict(zip(ends, own, strict=True)))
            for x, y, *own in zip(values, dice, *ends.values(), strict=True)
        ]
        return spread([one.rho for one in found], n=[one.n for one in found])

    def failures(threshold: float) -> dict[str, Any]:
        found = [
            selective.failure_auroc(*pair, threshold=threshold)
            for pair in zip(dice, confidence, strict=True)
        ]
        failed = [number for _, number in found]
        others = [one.n - number for one, number in zip(plain, failed, strict=True)]
        return spread([one for one, _ in found], failures=failed, others=others)

    result = {
        "rho": spread([one.rho for one in plain]),
        "p": max(ps) if len(ps) == len(plain) else None,
        "n": [one.n for one in plain],
        "rho_given_reference_volume": spread([one.rho for one in partial]),
        "rho_above_dice": {
            str(floor): within(low=[floor] * len(tests)) for floor in DICE_THRESHOLDS
        },
        "rho_by_half": {"worse": within(high=medians), "better": within(low=medians)},
        "rho_between_seeds": between(values),
        **{
            area: spread([one[area] for one in areas])
            for area in ("aurc", "e_aurc", "augrc")
        },
        "failure_auroc": {str(one): failures(one) for one in DICE_THRESHOLDS},
        "referral_gain": spread(map(selective.referral_gain, dice, confidence)),
    }
    if name in PAPER_MEASURES:  # it has an entry for every case
        curves = selective.referral(dice[0], confidence[0])
        result["referral"] = {key: curve.tolist() for key, curve in curves.items()}
    return result


def measures_table(content: dict[str, Any]) -> Table:
    """Returns a table of every measure of every model as a ranking of the test cases.

    content: content of statistics.json. With several seeds a row gives the correlation
    of Dice itself between two trainings.
    """
    header = (
        *("model", "measure", "n", "AUGRC", "AURC", "E-AURC", "rho", "95 %"),
        "reliability",
        *("between seeds", "given volume", f"Dice > {_FLOOR} (n)"),
        *(f"AUROC Dice < {_FAILURE} (failures)", "referral gain"),
    )
    rows = []
    for model in content["models"]:
        for name, one in model["measures"].items():
            rows.append([model["name"], name, *_ranking(name, one)])
        own = model["dice"]["test"]["rho_between_seeds"]
        if own is not None:
            cells = {"model": model["name"], "measure": "(Dice)"}
            cells["between seeds"] = number(own)
            rows.append([cells.get(name, "") for name in header])
    return Table(
        "Measures as rankings of the cases",
        header,
        rows,
        "Measures as rankings of the n test cases where they are defined, means over "
        "seeds; rows with different n are over different cases. Areas under the "
        "curve of generalised risk (AUGRC; risk: 1 - Dice), under the risk-coverage "
        "curve (AURC), and that over the best possible one (E-AURC): lower is better. "
        "rho: Spearman's with Dice. Reliability: correlation of the measure between "
        "two draws of N samples of one network, from halves of the samples (95 %); "
        "rho is not expected to exceed its square root. Between seeds: correlation of "
        "the measure between two trainings. Given volume: partial rho, given the "
        f"reference's volume. Dice > {_FLOOR}: rho over the cases above it, so that a "
        "few failures do not determine the result. AUROC: for failures, Dice below "
        f"{_FAILURE} (number per seed; 0.5 is chance), with at least "
        f"{FEWEST_FAILURES} failures and as many others. Referral gain: increase of "
        "the mean Dice of the other cases when the least certain are referred to a "
        "human, 0 as at random, 1 as by an oracle.",
    )


def failures_cell(found: dict[str, Any]) -> str:
    """Formats the AUROC of failures, or "too few" below FEWEST_FAILURES.

    found: the mean over seeds, with "failures" and "others", their numbers per seed.
    """
    counts = ", ".join(map(str, found["failures"]))
    if min(found["failures"], default=0) < FEWEST_FAILURES:
        return f"too few ({counts})"
    if min(found["others"]) < FEWEST_FAILURES:
        return f"too few others ({', '.join(map(str, found['others']))})"
    return f"{number(found['mean'])} ({counts})"


def between(columns: Sequence[np.ndarray]) -> float | None:
    """Returns the mean of Spearman's rho over the pairs of runs.

    It shows whether trainings rank the cases alike. Differences between trainings are
    noise, which lowers the correlation of a measure with Dice (Spearman, 1904). None
    for one run, or if a pair has no correlation.
    """
    pairs = combinations(columns, 2)
    return spread(statistics.spearman(*pair).rho for pair in pairs)["mean"]


def _ranking(name: str, one: dict[str, Any]) -> list[str]:
    """Returns the cells of the measure `name`, in the order of the header."""
    floor = one["rho_above_dice"][str(_FLOOR)]
    return [
        str(min(one["n"])),
        *(number(one[area]["mean"], ".4f") for area in ("augrc", "aurc", "e_aurc")),
        number(one["rho"]["mean"]),
        interval(one["ci95"]),
        split_half.cell(one["reliability"]) if name in PAPER_MEASURES else "",
        number(one["rho_between_seeds"]),
        number(one["rho_given_reference_volume"]["mean"]),
        f"{number(floor['mean'])} ({min(floor['n'])})",
        failures_cell(one["failure_auroc"][str(_FAILURE)]),
        number(one["referral_gain"]["mean"]),
    ]
