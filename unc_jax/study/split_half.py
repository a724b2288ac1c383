"""Reliability of the measures: how reproducible a ranking of the cases is.

A measure of N random samples varies from draw to draw. Its reliability r is the
correlation over the cases of two independent measurements, estimated from the two
halves of the samples (columns `HALF_COLUMNS` of cases.csv). From N to k N samples it
grows as k r / (1 + (k - 1) r) (Spearman, 1910; Brown, 1910). A measure of reliability r
is not expected to correlate with anything by more than sqrt(r) (Spearman, 1904); but r
is an estimate, and with few cases a correlation may exceed it by chance.

Only variation of the samples is included, not that between trainings (`between`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from unc_jax.study import statistics
from unc_jax.study.cases_table import Row, column
from unc_jax.study.statistics import Estimate
from unc_jax.study.tables import UNDEFINED, interval, number
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

WANTED = 0.8  # enough for research (Nunnally, Psychometric Theory, 1978)
NOT_MEASURED = "not measured"
# Header of a column with the reliabilities of the paper's measures.
HEADER = "reliability " + " / ".join(MEASURES[name].label for name in PAPER_MEASURES)
# Measures that hardly improve with more samples: CV is a variance, which depends on
# extreme samples; with 10 and 50 it was equally reliable (results/synthetic/factors).
_GAINS_LITTLE = ("cv",)
_NO_HALVES = (
    "The reliability of the measures was not measured: that needs dropout as the "
    "source, at least 4 samples, rows of this version, and at least 3 cases."
)


def stepped_up(reliability: ArrayLike, factor: float) -> np.ndarray:
    """Returns the reliability with `factor` times the samples, k r / (1 + (k - 1) r).

    Any shape; a reliability below 0 (by chance) counts as 0. NaN stays NaN.
    """
    r = np.clip(np.asarray(reliability, float), 0.0, 1.0)
    return factor * r / (1 + (factor - 1) * r)


def samples_for(wanted: float, reliability: float | None, samples: int) -> int | None:
    """Returns the samples for a wanted reliability R: N R (1 - r) / (r (1 - R)).

    reliability: r at N = `samples`. The result is rounded up and at least 2, the fewest
    samples of a measure; None if r is 0, where no number suffices, or None.
    """
    if not reliability:
        return None
    needed = samples * wanted * (1 - reliability) / (reliability * (1 - wanted))
    return max(2, math.ceil(round(needed, 9)))


def estimate(rows: Sequence[Row], name: str, cases: np.ndarray) -> Estimate:
    """Returns the reliability of the measure `name` at the rows' own N, and its draws.

    cases: from `statistics.resampled_cases`. Without halves the value is None.
    """
    if name not in PAPER_MEASURES:
        return Estimate(None, np.full(len(cases), np.nan))
    first, second = (column(rows, f"{name}_half{half}") for half in (1, 2))
    found = statistics.estimate_spearman(first, second, cases)
    samples = samples_of(rows)
    factor = samples / (samples // 2) if samples > 1 else 1.0
    value = None if found.value is None else float(stepped_up(found.value, factor))
    return Estimate(value, stepped_up(found.draws, factor))


def samples_of(rows: Sequence[Row]) -> int:
    """Returns N, the fewest samples of a row; 0 where no row has any."""
    return min((int(n) for row in rows if (n := row["n_samples"])), default=0)


def describe(found: Estimate, samples: int) -> dict[str, Any] | None:
    """Returns {value, ci95, samples, ceiling, wanted, samples_needed}, or None.

    ceiling: square root of the value, the largest expected correlation of the measure;
    samples_needed: for the reliability WANTED, None if no number suffices. Returns None
    if the reliability was not measured.
    """
    if found.value is None:
        return None
    return {
        "value": found.value,
        "ci95": statistics.finding(found)["ci95"],
        "samples": samples,
        "ceiling": math.sqrt(found.value),
        "wanted": WANTED,
        "samples_needed": samples_for(WANTED, found.value, samples),
    }


def of_runs(
    tests: Sequence[list[Row]], name: str, cases: np.ndarray, chosen: np.ndarray
) -> dict[str, Any] | None:
    """Returns `describe` of the mean over a model's runs, and the values by_seed.

    chosen: from `statistics.resampled_runs`.
    """
    runs = [estimate(rows, name, cases) for rows in tests]
    found = describe(
        statistics.mean_over_runs(runs, chosen), min(map(samples_of, tests))
    )
    return found and {**found, "by_seed": [one.value for one in runs]}


def cell(found: Mapping[str, Any] | None) -> str:
    """Returns a reliability with its interval, as a table prints it."""
    if found is None:
        return NOT_MEASURED
    return f"{number(found['value'])} ({interval(found['ci95'])})"


def cell_of_paper_measures(measures: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the reliability of each of the paper's measures, of one row of a table.

    measures: by name, each with its "reliability", as in summary.json.
    """
    found = [measures[name].get("reliability") for name in PAPER_MEASURES]
    if not any(found):
        return NOT_MEASURED
    return " / ".join(number(one["value"]) if one else UNDEFINED for one in found)


def sentences(measures: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns a sentence on the reliability of each of the paper's measures."""
    known = {
        name: found
        for name in PAPER_MEASURES
        if (found := measures[name].get("reliability"))
    }
    return [_sentence(*one) for one in known.items()] or [_NO_HALVES]


def _sentence(name: str, found: Mapping[str, Any]) -> str:
    label = MEASURES[name].label
    start = (
        f"At N = {found['samples']} samples the reliability of {label} is "
        f"{found['value']:.2f} (95 % {interval(found['ci95'])})"
    )
    if found["samples_needed"] is None:
        return f"{start}: its ranking of the cases is random; try more samples."
    words = (
        f"{start}: its correlation with Dice is not expected to exceed about "
        f"{found['ceiling']:.2f}."
    )
    if found["value"] < found["wanted"] and name in _GAINS_LITTLE:
        words += " More samples hardly raise it."
    elif found["value"] < found["wanted"]:
        words += (
            f" For a reliability of {found['wanted']} take N = "
            f"{found['samples_needed']}."
        )
    return words
