"""Does one setting rank the cases better than another?

    python benchmarks/between_settings.py NAME=RUN,RUN,... NAME=RUN,... [...]

NAME is a setting, RUN the run folders of its trainings. Every run needs the same test
cases. Prints per pair of settings and measure the mean strength (rho with Dice, with
the sign of a measure that works) of the first less that of the second. Brackets: 95 %
bootstrap intervals over cases, the same for both, and over the trainings of each; not
corrected for the number of pairs.
"""

import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from unc_jax.study import case_columns, cases_table, statistics
from unc_jax.study.statistics import RESAMPLES, SEED, Estimate
from unc_jax.study.tables import Table, interval, markdown, number
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

Runs = Sequence[Sequence[cases_table.Row]]  # test rows of each training


def table(settings: Mapping[str, Runs]) -> Table:
    """Returns the table of differences; raises ValueError for runs of other cases."""
    runs = [run for named in settings.values() for run in named]
    cases = sorted(str(row["case"]) for row in runs[0])
    if any(sorted(str(row["case"]) for row in run) != cases for run in runs):
        raise ValueError("the runs need the same test cases")
    drawn = statistics.resampled_cases(cases, resamples=RESAMPLES, seed=SEED)
    found = {
        (name, measure): _strength(name, named, measure, drawn)
        for name, named in settings.items()
        for measure in PAPER_MEASURES
    }
    lines = [
        [f"{one} - {other}"]
        + [
            _told(statistics.mean_difference([(found[one, m], found[other, m])]))
            for m in PAPER_MEASURES
        ]
        for one, other in combinations(settings, 2)
    ]
    labels = [MEASURES[measure].label for measure in PAPER_MEASURES]
    return Table("Between settings", ("settings", *labels), lines)


def _strength(name: str, runs: Runs, measure: str, drawn: np.ndarray) -> Estimate:
    """Returns the mean strength over trainings, resampled over cases and trainings."""
    each = []
    for run in runs:
        ordered = sorted(run, key=lambda row: str(row["case"]))
        values = MEASURES[measure].sign * cases_table.column(ordered, measure)
        dice = cases_table.column(ordered, "dice")
        each.append(statistics.estimate_spearman(values, dice, drawn))
    chosen = statistics.resampled_runs(name, len(each), resamples=RESAMPLES, seed=SEED)
    return statistics.mean_over_runs(each, chosen)


def _told(estimate: Estimate) -> str:
    found = statistics.finding(estimate)
    return f"{number(found['value'])} ({interval(found['ci95'])})"


def _test_rows(run: Path) -> list[cases_table.Row]:
    columns = case_columns.EVALUATION_COLUMNS
    rows = cases_table.read_rows(run / "cases.csv", columns)
    return [row for row in rows if row["split"] == "test"]


def main(words: Sequence[str]) -> None:
    """Reads the runs of NAME=RUN,... and prints the table."""
    settings: dict[str, Runs] = {}
    for word in words:
        name, _, runs = word.partition("=")
        rows = [
            cases_table.read_rows(
                Path(run) / "cases.csv", case_columns.EVALUATION_COLUMNS
            )
            for run in runs.split(",")
        ]
        settings[name] = [
            [row for row in run if row["split"] == "test"] for run in rows
        ]
    print(markdown([table(settings)]))


if __name__ == "__main__":
    main(sys.argv[1:])
