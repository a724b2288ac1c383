import numpy as np
import pytest
from scipy import stats

from unc_jax.study import paired
from unc_jax.study.paired import Estimate
from unc_jax.study.statistics import partial_spearman, spearman_above

IDS = [f"case_{i}" for i in range(40)]
NAN = float("nan")


def cases(resamples=200, ids=IDS, seed=0):
    return paired.resampled_cases(ids, resamples=resamples, seed=seed)


def test_resamples_follow_the_ids():
    assert np.array_equal(cases(), cases())
    assert not np.array_equal(cases(), cases(seed=1))
    other = [f"other_{i}" for i in range(40)]
    assert not np.array_equal(cases(), cases(ids=other))


def test_resampled_spearman_is_scipys_in_every_resample():
    rng = np.random.default_rng(0)
    x = np.round(rng.normal(size=40), 1)  # with ties
    y = x + rng.normal(size=40)
    x[[3, 8]], y[8], y[20] = NAN, NAN, NAN
    drawn = cases(30)
    found = paired.resampled_spearman(x, y, drawn)
    for rho, row in zip(found, drawn, strict=True):
        a, b = x[row], y[row]
        kept = ~(np.isnan(a) | np.isnan(b))
        assert rho == pytest.approx(stats.spearmanr(a[kept], b[kept]).statistic)


def test_undefined_resamples_are_nan():
    drawn = np.array([[0, 1, 2], [0, 0, 0], [0, 1, 3], [3, 3, 3]])
    rho = paired.resampled_spearman([1, 2, 3, NAN], [1, 2, 3, 4.0], drawn)
    assert rho[0] == pytest.approx(1.0)
    assert np.isnan(rho[1:]).all()
    assert paired.resampled_mean([1, 2, NAN], np.array([[0, 1, 2], [2, 2, 2]])) == (
        pytest.approx([1.5, NAN], nan_ok=True)
    )


def test_mean_over_seeds_is_undefined_if_one_is():
    draws = [np.array([0.1, 0.2]), np.array([0.3, 0.6])]
    chosen = np.array([[0, 1], [1, 1]])
    found = paired.over_seeds([0.2, 0.4], draws, chosen)
    assert found.value == pytest.approx(0.3)
    assert found.draws == pytest.approx([0.2, 0.6])
    assert paired.over_seeds([0.2, None], draws, chosen).value is None


def test_finding_by_hand():
    draws = np.array([-1.0, *range(1, 100), NAN])
    found = paired.finding(Estimate(50.0, draws))
    assert (found.low, found.high) == pytest.approx((2.475, 96.525))
    assert found.p == pytest.approx(2 * 2 / 101)
    assert paired.finding(Estimate(0.0, np.zeros(5))).p == 1.0
    assert paired.finding(Estimate(None, draws)) == (None, None, None, None)


def test_a_shared_part_cancels_in_a_difference():
    rng = np.random.default_rng(1)
    quality = rng.normal(size=40)
    one = quality + rng.normal(size=40)
    two = one + 0.01 * rng.normal(size=40)  # almost the same measure
    drawn = cases(500)
    estimates = [
        Estimate(
            float(stats.spearmanr(m, quality).statistic),
            paired.resampled_spearman(m, quality, drawn),
        )
        for m in (one, two)
    ]
    alone = paired.finding(estimates[0])
    difference = paired.finding(paired.mean_difference([(estimates[0], estimates[1])]))
    assert None not in (*alone, *difference)
    assert difference.high - difference.low < 0.2 * (alone.high - alone.low)


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
    found = spearman_above([0.0, 3, 2, 1, 0], dice, floor=0.8)
    assert (found.rho, found.n) == (pytest.approx(-1), 3)


def simulate(rho_one, rho_two, *, n=55, sets=300, resamples=400):
    """Truth of each set's interval, for rho and for a difference, and false alarms."""
    rng = np.random.default_rng(3)
    ids = [str(i) for i in range(n)]
    inside, inside_difference, alarms = 0, 0, 0
    # Of normal variables Spearman's coefficient is (6/pi) asin(r/2).
    truth = [6 / np.pi * np.arcsin(r / 2) for r in (rho_one, rho_two)]
    for trial in range(sets):
        quality = rng.normal(size=n)
        drawn = paired.resampled_cases(ids, resamples=resamples, seed=trial)
        estimates = []
        for r in (rho_one, rho_two):
            measure = r * quality + np.sqrt(1 - r * r) * rng.normal(size=n)
            value = float(stats.spearmanr(measure, quality).statistic)
            draws = paired.resampled_spearman(measure, quality, drawn)
            estimates.append(Estimate(value, draws))
        low, high = paired.finding(estimates[0])[1:3]
        inside += low <= truth[0] <= high
        gap = paired.finding(paired.mean_difference([tuple(estimates)]))
        inside_difference += gap.low <= truth[0] - truth[1] <= gap.high
        alarms += gap.p < 0.05
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
