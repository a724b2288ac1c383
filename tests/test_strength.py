import numpy as np
import pytest
from scipy.stats import spearmanr

from unc_jax.study import statistics, strength
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.cases_table import new_row
from unc_jax.study.strength import Cell

CASES = [f"case_{number:02d}" for number in range(20)]
D_PW, U = (Cell("tumor", "wcc", "large", "", name) for name in ("d_pw", "u_labelled"))


def rows_of(seed, ids=CASES):
    """Rows of a run in which three masks are empty: Dice 0, and no U_labelled."""
    random = np.random.default_rng(seed)
    dice, noise = random.uniform(0.2, 0.9, (2, len(ids)))
    dice[:3] = 0.0
    return [
        new_row(
            EVALUATION_COLUMNS,
            case=case,
            split="test",
            dice=float(own),
            d_pw=float(own + apart),
            u_labelled=None if own == 0 else float(apart - own),
        )
        for case, own, apart in zip(ids, dice, noise, strict=True)
    ]


def paired(tests_of):
    """`paired` of cells whose test rows of each run are given."""
    rankings = {}
    for cell, tests in tests_of.items():
        ids = [row["case"] for row in tests[0]]
        cases = statistics.resampled_cases(ids, resamples=50, seed=0)
        chosen = statistics.resampled_runs("one", len(tests), resamples=50, seed=0)
        rankings[cell] = strength.ranking(tests, cell.measure, cases, chosen)
    every = {
        cell: strength.strength(one, np.ones(len(one.ids), bool))
        for cell, one in rankings.items()
    }
    return strength.build_paired(rankings, every), every


def test_two_measures_are_judged_by_the_cases_of_both():
    tests = [rows_of(0), rows_of(1)]
    pair, every = paired({D_PW: tests, U: tests})
    found = pair(D_PW, U)
    assert found.cases == 17
    expected = [
        spearmanr(*([row[name] for row in rows[3:]] for name in ("d_pw", "dice")))
        for rows in tests
    ]
    mean = np.mean([one.statistic for one in expected])
    assert found.first.value == pytest.approx(mean)
    assert every[D_PW].value > found.first.value + 0.01  # the failures it had found
    assert found.second is every[U]  # they were no cases of it before
    assert pair(U, D_PW).second.value == found.first.value


def test_a_case_that_one_run_lacks_is_in_no_run_of_a_pair():
    tests = [rows_of(0), rows_of(1)]
    lacking = [[dict(row) for row in rows] for rows in tests]
    lacking[1][5]["u_labelled"] = None
    pair, _ = paired({D_PW: tests, U: lacking})
    assert pair(D_PW, U).cases == 16


def test_cells_of_other_cases_keep_their_own():
    other = [rows_of(0, [f"other_{number:02d}" for number in range(20)])]
    pair, every = paired({D_PW: [rows_of(0)], U: other})
    found = pair(D_PW, U)
    assert (found.first, found.second) == (every[D_PW], every[U])
    assert found.cases == 17
