import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from unc_jax.study import statistics

# Few distinct values, so that ties are common.
values = st.lists(st.integers(-3, 3).map(float), min_size=4, max_size=20)


@settings(deadline=None, max_examples=30)
@given(x=values, seed=st.integers(0, 9))
def test_spearman_is_that_of_scipy(x, seed):
    y = np.round(np.random.default_rng(seed).normal(size=len(x)), 1)
    assume(len(set(x)) > 1 and len(set(y)) > 1)
    expected = stats.spearmanr(x, y)
    rho, p, n = statistics.spearman(x, y)
    assert rho == pytest.approx(expected.statistic, abs=1e-12)
    assert p == pytest.approx(expected.pvalue, abs=1e-12)
    assert n == len(x)


def test_spearman_of_the_complete_pairs():
    x = [1.0, np.nan, 2.0, 3.0, 4.0]
    y = [10.0, 5.0, 20.0, 15.0, np.nan]
    # Ranks (1, 2, 3) and (1, 3, 2): rho = 1 - 6 * 2 / (3 * 8) = 0.5
    rho, _, n = statistics.spearman(x, y)
    assert rho == pytest.approx(0.5)
    assert n == 3


@pytest.mark.parametrize(
    ("x", "n"),
    [([1.0, 2.0], 2), ([1.0, np.nan, 3.0], 2), ([], 0), ([2.0, 2.0, 2.0], 3)],
)
def test_undefined_correlations_say_how_many_cases_there_were(x, n):
    y = np.arange(len(x), dtype=float)
    assert statistics.spearman(x, y) == (None, None, n)
    assert statistics.spearman(y, x) == (None, None, n)
    assert statistics.bootstrap_spearman(x, y).low is None


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="equal lengths"):
        statistics.spearman([1.0, 2.0, 3.0], [1.0])


def test_bootstrap_equals_a_loop_over_scipy():
    rng = np.random.default_rng(3)
    x = rng.normal(size=12)
    y = np.round(x + rng.normal(size=12), 1)
    cases = np.random.default_rng(5).integers(0, 12, size=(200, 12))
    rhos = [stats.spearmanr(x[one], y[one]).statistic for one in cases]
    low, high, dropped = statistics.bootstrap_spearman(x, y, resamples=200, seed=5)
    assert (low, high) == pytest.approx(tuple(np.percentile(rhos, [2.5, 97.5])))
    assert dropped == 0


def test_bootstrap_interval_covers_the_truth_about_95_times_in_100():
    # Bivariate normal with Pearson r: Spearman's rho is 6 / pi * asin(r / 2).
    r = 0.7
    truth = 6 / np.pi * np.arcsin(r / 2)
    rng = np.random.default_rng(0)
    covered = 0
    for seed in range(100):
        x, noise = rng.normal(size=(2, 55))
        y = r * x + np.sqrt(1 - r**2) * noise
        low, high, _ = statistics.bootstrap_spearman(x, y, resamples=400, seed=seed)
        covered += low < truth < high
    assert 85 <= covered <= 99


def test_bootstrap_is_a_function_of_the_seed():
    x, y = np.random.default_rng(1).normal(size=(2, 20))
    first = statistics.bootstrap_spearman(x, y, resamples=100, seed=1)
    assert first == statistics.bootstrap_spearman(x, y, resamples=100, seed=1)
    assert first != statistics.bootstrap_spearman(x, y, resamples=100, seed=2)


def test_constant_resamples_are_dropped_and_counted():
    # All cases but one are equal: a resample without it, (3/4)^4 of them, has no rho.
    x = [0.0, 0.0, 0.0, 1.0]
    low, high, dropped = statistics.bootstrap_spearman(x, x, resamples=2000)
    assert (low, high) == (1.0, 1.0)
    # The one that holds nothing else is constant too: (1/4)^4.
    expected = 2000 * ((3 / 4) ** 4 + (1 / 4) ** 4)
    assert abs(dropped - expected) < 100


def test_bootstrap_mean():
    values = np.append(np.random.default_rng(2).normal(5, 1, size=400), np.nan)
    low, high, _ = statistics.bootstrap_mean(values, resamples=1000)
    # The interval of a normal mean: +- 1.96 sd / sqrt(n).
    half = 1.96 * np.nanstd(values) / 20
    mean = np.nanmean(values)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.02)


@pytest.mark.parametrize("values", [[], [0.7], [np.nan, 0.7]])
def test_no_interval_from_fewer_than_two_cases(values):
    assert statistics.bootstrap_mean(values) == (None, None, 0)
