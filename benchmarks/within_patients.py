"""Do the measures tell harder from easier structures of the same patients?

    python benchmarks/within_patients.py NAME=RUN,RUN,... NAME=RUN,... [...]

NAME is a structure, RUN the run folders whose test cases are its patients: one, or the
folds. Every structure needs the same patients. Prints per measure: Spearman's rho with
Dice for each structure and for all (patient, structure) pairs pooled, and how often of
two structures of a patient the one that the measure trusts more has the higher Dice
(0.5 is chance). Brackets: 95 % bootstrap intervals over patients, whose structures
stay together.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from unc_jax.study import case_columns, cases_table, statistics
from unc_jax.study.tables import Table, interval, markdown, number
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES


def concordance(strength: np.ndarray, dice: np.ndarray) -> np.ndarray:
    """Returns each patient's share of pairs of structures in the order of their Dice.

    Both (patients, structures), strength higher where a measure trusts more. A pair
    with a NaN or of equal Dice does not count; one of equal strength counts half. NaN
    for a patient without a pair.
    """
    pairs = list(combinations(range(dice.shape[1]), 2))
    first, second = (list(one) for one in zip(*pairs, strict=True))
    apart = dice[:, first] - dice[:, second]
    trusted = strength[:, first] - strength[:, second]
    counts = (apart != 0) & ~np.isnan(apart) & ~np.isnan(trusted)
    right = np.where(trusted == 0, 0.5, np.sign(trusted) == np.sign(apart))
    total = counts.sum(axis=1)
    share = np.where(counts, right, 0.0).sum(axis=1) / np.maximum(total, 1)
    return np.where(total > 0, share, np.nan)


def table(rows: Mapping[str, Sequence[cases_table.Row]]) -> Table:
    """Returns the table of test rows by structure; raises ValueError for rows of other
    patients, or of fewer than two structures."""
    names = list(rows)
    ordered = {name: sorted(rows[name], key=_case) for name in names}
    patients = [_case(row) for row in ordered[names[0]]]
    if len(names) < 2 or any(
        [_case(r) for r in o] != patients for o in ordered.values()
    ):
        raise ValueError("need two structures or more of the same patients")
    drawn = statistics.resampled_cases(
        patients, resamples=statistics.RESAMPLES, seed=statistics.SEED
    )
    together = drawn[:, :, None] * len(names) + np.arange(len(names))
    together = together.reshape(len(drawn), -1)
    dice = _columns(ordered, "dice")
    lines = []
    for measure in PAPER_MEASURES:
        values = _columns(ordered, measure)
        each = [
            statistics.estimate_spearman(values[:, i], dice[:, i], drawn)
            for i in range(len(names))
        ]
        each.append(
            statistics.estimate_spearman(values.ravel(), dice.ravel(), together)
        )
        share = concordance(MEASURES[measure].sign * values, dice)
        each.append(statistics.estimate_mean(share, drawn))
        lines.append([MEASURES[measure].label, *map(in_words, each)])
    means = ", ".join(
        f"{name} {np.nanmean(dice[:, i]):.2f}" for i, name in enumerate(names)
    )
    return Table(
        "Within patients",
        ("measure", *(f"rho {name}" for name in names), "pooled", "within patients"),
        lines,
        f"{len(patients)} patients; mean Dice: {means}.",
    )


def _columns(rows: Mapping[str, Sequence[cases_table.Row]], name: str) -> np.ndarray:
    return np.stack([cases_table.column(own, name) for own in rows.values()], axis=1)


def _case(row: cases_table.Row) -> str:
    return str(row["case"])


def in_words(estimate: statistics.Estimate) -> str:
    """Returns a value with its interval, e.g. "0.51 (0.30 to 0.69)"."""
    found = statistics.finding(estimate)
    return f"{number(found['value'])} ({interval(found['ci95'])})"


def read_test_rows(run: Path) -> list[cases_table.Row]:
    """Reads the rows of the test cases of a run's cases.csv."""
    columns = case_columns.EVALUATION_COLUMNS
    rows = cases_table.read_rows(run / "cases.csv", columns)
    return [row for row in rows if row["split"] == "test"]


def main(words: Sequence[str]) -> None:
    """Reads the runs of NAME=RUN,... and prints the table."""
    rows: dict[str, list[cases_table.Row]] = {}
    for word in words:
        name, _, runs = word.partition("=")
        rows[name] = [
            row for run in runs.split(",") for row in read_test_rows(Path(run))
        ]
    print(markdown([table(rows)]))


if __name__ == "__main__":
    main(sys.argv[1:])
