"""Strength of a measure's correlation with Dice, and of two on the cases of both.

Strength is rho times the sign it has if the measure works (D_pw rises with Dice, the
others fall), so a correlation of the wrong sign is a weak one, not a strong one.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unc_jax.study import statistics
from unc_jax.study.cases_table import Row, column
from unc_jax.study.statistics import Estimate
from unc_jax.uncertainty.measures import MEASURES


class Cell(NamedTuple):
    """A model and a measure, whose correlation with Dice is compared."""

    target: str
    loss: str
    size: str
    variant: str
    measure: str
    ensemble: str = ""  # in words; "" for networks one by one


class Ranking(NamedTuple):
    """Holds the values that a cell's strength is computed from, of the test cases.

    ids: of the cases. measure, its sign turned so that it should rise with Dice, and
    dice: (runs, cases), NaN where undefined. cases, chosen: the draws of the bootstrap,
    from `statistics.resampled_cases` and `resampled_runs`.
    """

    ids: tuple[str, ...]
    measure: np.ndarray
    dice: np.ndarray
    cases: np.ndarray
    chosen: np.ndarray

    @property
    def present(self) -> np.ndarray:
        """Returns where both values are, bool (runs, cases)."""
        return ~np.isnan(self.measure + self.dice)


class Pair(NamedTuple):
    """Two strengths, and the number of cases that both rest on."""

    first: Estimate
    second: Estimate
    cases: int


def ranking(
    tests: Sequence[list[Row]], name: str, cases: np.ndarray, chosen: np.ndarray
) -> Ranking:
    """Returns the ranking by the measure `name` of the test rows of each run."""
    measure = np.stack([column(rows, name) for rows in tests])
    dice = np.stack([column(rows, "dice") for rows in tests])
    ids = tuple(str(row["case"]) for row in tests[0])
    return Ranking(ids, MEASURES[name].sign * measure, dice, cases, chosen)


def strength(one: Ranking, among: np.ndarray) -> Estimate:
    """Returns the mean over runs of rho, of each run over its own cases `among` these.

    among: bool (cases,).
    """
    rhos = [
        statistics.estimate_spearman(np.where(among, measure, np.nan), dice, one.cases)
        for measure, dice in zip(one.measure, one.dice, strict=True)
    ]
    return statistics.mean_over_runs(rhos, one.chosen)


def build_paired(
    rankings: Mapping[Cell, Ranking], strengths: Mapping[Cell, Estimate]
) -> Callable[[Cell, Cell], Pair]:
    """Returns a function from two cells to their strengths on the cases of both.

    Those are the cases that every run of both has. A measure that is undefined where a
    mask is empty would else be spared the failures that the other is judged by. Cells
    of other test cases keep their own. strengths: of each cell over all its cases.
    """

    def among(cell: Cell, common: np.ndarray) -> Estimate:
        one = rankings[cell]
        if not (one.present & ~common).any():
            return strengths[cell]
        return strength(one, common)

    def paired(first: Cell, second: Cell) -> Pair:
        one, two = rankings[first], rankings[second]
        mine, others = (np.all(each.present, axis=0) for each in (one, two))
        if one.ids != two.ids:
            number = int(min(mine.sum(), others.sum()))
            return Pair(strengths[first], strengths[second], number)
        common = np.logical_and(mine, others)
        return Pair(among(first, common), among(second, common), int(common.sum()))

    return paired
