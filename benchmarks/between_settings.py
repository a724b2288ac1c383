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

from benchmarks.within_patients import in_words, read_test_rows
from unc_jax.study import statistics
from unc_jax.study.cases_table import Row
from unc_jax.study.statistics import RESAMPLES, SEED
from unc_jax.study.strength import ranking, strength
from unc_jax.study.tables import Table, markdown
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES


def table(settings: Mapping[str, Sequence[list[Row]]]) -> Table:
    """Returns the table of differences between settings.

    settings: by name, the test rows of each training. Raises ValueError for runs of
    other cases.
    """
    ordered = {
        name: [sorted(rows, key=lambda row: str(row["case"])) for rows in runs]
        for name, runs in settings.items()
    }
    cases, *others = (
        [str(row["case"]) for row in rows] for runs in ordered.values() for rows in runs
    )
    if any(other != cases for other in others):
        raise ValueError("the runs need the same test cases")
    drawn = statistics.resampled_cases(cases, resamples=RESAMPLES, seed=SEED)
    every = np.ones(len(cases), bool)
    found = {}
    for name, runs in ordered.items():
        chosen = statistics.resampled_runs(
            name, len(runs), resamples=RESAMPLES, seed=SEED
        )
        for measure in PAPER_MEASURES:
            one = ranking(runs, measure, drawn, chosen)
            found[name, measure] = strength(one, every)
    lines = []
    for one, other in combinations(ordered, 2):
        pairs = [(found[one, m], found[other, m]) for m in PAPER_MEASURES]
        differences = [statistics.mean_difference([pair]) for pair in pairs]
        lines.append([f"{one} - {other}", *map(in_words, differences)])
    labels = [MEASURES[measure].label for measure in PAPER_MEASURES]
    return Table("Between settings", ("settings", *labels), lines)


def main(words: Sequence[str]) -> None:
    """Reads the runs of NAME=RUN,... and prints the table."""
    settings = {}
    for word in words:
        name, _, runs = word.partition("=")
        settings[name] = [read_test_rows(Path(run)) for run in runs.split(",")]
    print(markdown([table(settings)]))


if __name__ == "__main__":
    main(sys.argv[1:])
