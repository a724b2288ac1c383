import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from unc_jax.study import statistics
from unc_jax.study.statistics import (
    Estimate,
    estimate_mean,
    estimate_spearman,
    finding,
    mean_difference,
    mean_over_runs,
    partial_spearman,
    spearman_within,
)

NAN = float("nan")
IDS = [f"case_{i}" for i in range(40)]

# Few distinct values, so that ties are common.
values = st.lists(st.integers(-3, 3).map(float), min_size=4, max_size=20)


def cases(resamples=200, ids=IDS, seed=0):
    return statistics.resampled_cases(ids, resamples=resamples, seed=seed)


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
    x = [1.0, NAN, 2.0, 3.0, 4.0]
    y = [10.0, 5.0, 20.0, 15.0, NAN]
    # Ranks (1, 2, 3) and (1, 3, 2): rho = 1 - 6 * 2 / (3 * 8) = 0.5
    rho, _, n = statistics.spearman(x, y)
    assert rho == pytest.approx(0.5)
    assert n == 3


@pytest.mark.parametrize(
    ("x", "n"),
    [([1.0, 2.0], 2), ([1.0, NAN, 3.0], 2), ([2.0, 2.0, 2.0], 3)],
)
def test_undefined_correlations_say_how_many_cases_there_were(x, n):
    y = np.arange(len(x), dtype=float)
    assert statistics.spearman(x, y) == (None, None, n)
    assert statistics.spearman(y, x) == (None, None, n)
    found = finding(estimate_spearman(x, y, cases(ids=IDS[: len(x)])))
    assert set(found.values()) == {None}


def test_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="equal lengths"):
        statistics.spearman([1.0, 2.0, 3.0], [1.0])


def test_partial_correlation_is_that_of_the_residual_ranks():
    rng = np.random.default_rng(2)
    volume = rng.normal(size=50)
    x, y = volume + rng.normal(size=50), 0.5 * volume + rng.normal(size=50)
    ranks = [stats.rankdata(v) for v in (x, y, volume)]
    residuals = [
        r - np.polyval(np.polyfit(ranks[2], r, 1), ranks[2]) for r in ranks[:2]
    ]
    expected = np.corrcoef(*residuals)[0, 1]
    found = partial_spearman(x, y, volume)
    assert found.rho == pytest.approx(expected)
    t = expected * np.sqrt(47 / (1 - expected**2))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 47))
    # The shared volume was most of what the two had in common.
    assert abs(found.rho) < abs(stats.spearmanr(x, y).statistic)


def test_partial_correlation_that_is_undefined():
    assert partial_spearman([1, 2, 3, 4], [2, 1, 4, 3], [1, 2, 3, 4]) == (None, None, 4)
    assert partial_spearman([1, 2, 3], [1, 3, 2], [2, 1, 3]) == (None, None, 3)
    found = partial_spearman([1, 2, 3, 4, NAN], [2, 1, 4, 3, 1], [4, 4, 1, 2, 9])
    assert found.n == 4
    assert found.rho is not None


def test_floor_leaves_the_failures_out():
    dice = [0.1, 0.8, 0.85, 0.9, NAN]
    found = spearman_within([0.0, 3, 2, 1, 0], dice, low=0.8)
    assert (found.rho, found.n) == (pytest.approx(-1), 3)
    rest = spearman_within([0.0, 3, 2, 1, 0], dice, high=0.9)
    assert (rest.rho, rest.n) == (pytest.approx(0.5), 3)


def test_resamples_follow_the_ids():
    assert np.array_equal(cases(), cases())
    assert not np.array_equal(cases(), cases(seed=1))
    other = [f"other_{i}" for i in range(40)]
    assert not np.array_equal(cases(), cases(ids=other))


def test_draws_are_scipys_rho_in_every_resample():
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=40), 1)  # with ties
    y = x + rng.normal(size=40)
    x[[3, 8]], y[8], y[20] = NAN, NAN, NAN
    drawn = cases(30)
    found = estimate_spearman(x, y, drawn)
    assert found.value == statistics.spearman(x, y).rho
    for rho, row in zip(found.draws, drawn, strict=True):
        a, b = x[row], y[row]
        kept = ~(np.isnan(a) | np.isnan(b))
        assert rho == pytest.approx(stats.spearmanr(a[kept], b[kept]).statistic)


def test_undefined_resamples_are_nan_and_left_out():
    drawn = np.array([[0, 1, 2], [0, 0, 0], [0, 1, 6], [6, 6, 6]])
    x, y = [1, 2, 3, 4, 5, 6, NAN], [1, 2, 3, 4, 5, 6, 7.0]
    found = estimate_spearman(x, y, drawn)
    assert found.draws[0] == pytest.approx(1.0)
    assert np.isnan(found.draws[1:]).all()
    assert finding(found)["ci95"] == pytest.approx([1.0, 1.0])
    mean = estimate_mean([1, 2, NAN], np.array([[0, 1, 2], [2, 2, 2]]))
    assert mean.draws == pytest.approx([1.5, NAN], nan_ok=True)


def test_few_cases_have_no_interval_however_well_they_are_ordered():
    x = np.arange(6.0)
    assert finding(estimate_spearman(x, x, cases(ids=IDS[:6])))["ci95"] == [1.0, 1.0]
    found = finding(estimate_spearman(x[:5], x[:5], cases(ids=IDS[:5])))
    assert found["ci95"] is found["p_bootstrap"] is None


def test_interval_of_a_mean_is_that_of_the_normal_distribution():
    known = np.append(np.random.default_rng(2).normal(5, 1, size=400), NAN)
    drawn = cases(1000, ids=[str(i) for i in range(401)])
    found = finding(estimate_mean(known, drawn))
    mean, half = np.nanmean(known), 1.96 * np.nanstd(known) / 20
    assert found["value"] == pytest.approx(mean)
    assert found["ci95"] == pytest.approx([mean - half, mean + half], abs=0.02)


@pytest.mark.parametrize("known", [[NAN], [0.7], [NAN, 0.7]])
def test_no_interval_of_a_mean_from_fewer_than_two_cases(known):
    assert finding(estimate_mean(known, cases(ids=IDS[: len(known)])))["ci95"] is None


def test_mean_over_runs_is_undefined_if_one_is():
    runs = [Estimate(0.2, np.array([0.1, 0.2])), Estimate(0.4, np.array([0.3, 0.6]))]
    chosen = np.array([[0, 1], [1, 1]])
    found = mean_over_runs(runs, chosen)
    assert found.value == pytest.approx(0.3)
    assert found.draws == pytest.approx([0.2, 0.6])
    undefined = mean_over_runs([runs[0], runs[1]._replace(value=None)], chosen)
    assert undefined.value is None
    assert np.isnan(undefined.draws).all()


def test_finding_by_hand():
    draws = np.array([-1.0, *range(1, 100), NAN])
    found = finding(Estimate(50.0, draws))
    assert found["ci95"] == pytest.approx([2.475, 96.525])
    assert found["p_bootstrap"] == pytest.approx(2 * 2 / 101)
    assert finding(Estimate(0.0, np.zeros(5)))["p_bootstrap"] == 1.0
    assert set(finding(Estimate(None, draws)).values()) == {None}


def test_a_shared_part_cancels_in_a_difference():
    rng = np.random.default_rng(1)
    quality = rng.normal(size=40)
    one = quality + rng.normal(size=40)
    two = one + 0.01 * rng.normal(size=40)  # almost the same measure
    drawn = cases(500)
    pair = [estimate_spearman(m, quality, drawn) for m in (one, two)]
    alone, difference = finding(pair[0]), finding(mean_difference([tuple(pair)]))
    assert np.ptp(difference["ci95"]) < 0.2 * np.ptp(alone["ci95"])


def simulate(rho_one, rho_two, *, n=55, sets=300, resamples=400):
    """Truth of each set's interval, for rho and for a difference, and false alarms."""
    rng = np.random.default_rng(3)
    ids = [str(i) for i in range(n)]
    inside, inside_difference, alarms = 0, 0, 0
    # Of normal variables Spearman's coefficient is (6/pi) asin(r/2).
    truth = [6 / np.pi * np.arcsin(r / 2) for r in (rho_one, rho_two)]
    for trial in range(sets):
        quality = rng.normal(size=n)
        drawn = cases(resamples, ids, trial)
        measures = [
            r * quality + np.sqrt(1 - r * r) * rng.normal(size=n)
            for r in (rho_one, rho_two)
        ]
        pair = [estimate_spearman(one, quality, drawn) for one in measures]
        low, high = finding(pair[0])["ci95"]
        inside += low <= truth[0] <= high
        gap = finding(mean_difference([tuple(pair)]))
        inside_difference += gap["ci95"][0] <= truth[0] - truth[1] <= gap["ci95"][1]
        alarms += gap["p_bootstrap"] < 0.05
    return inside / sets, inside_difference / sets, alarms / sets


@pytest.mark.slow
@pytest.mark.parametrize(("one", "two"), [(0.5, 0.5), (0.8, 0.4), (0.0, 0.0)])
def test_intervals_cover_the_truth(one, two):
    rho, difference, alarms = simulate(one, two)
    # 300 sets: a standard error of 0.013 at 0.95.
    assert 0.90 <= rho <= 0.985
    assert 0.90 <= difference <= 0.99
    if one == two:
        assert alarms <= 0.085
