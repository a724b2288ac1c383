import numpy as np
import pytest

from unc_jax.review import selection


def test_p_values_by_hand():
    """Four calibration cases, the bad ones score 0.2 and 0.6."""
    scores = [0.1, 0.2, 0.3, 0.7, np.nan]
    found = selection.p_values(scores, [0.2, 0.6, 0.5, 0.9], [True, True, False, False])
    assert found == pytest.approx([3 / 5, 3 / 5, 2 / 5, 1 / 5, 1])


def test_benjamini_hochberg_by_hand():
    """The example of scipy and R: 0.04 fails alone, but 0.03 carries those below."""
    p = [0.01, 0.04, 0.03, 0.5]
    assert selection.benjamini_hochberg(p, 0.1).tolist() == [True, True, True, False]
    assert selection.benjamini_hochberg(p, 0.05).tolist() == [True, False, False, False]
    assert selection.benjamini_hochberg([], 0.1).tolist() == []


@pytest.mark.parametrize(("level", "fewest"), [(0.1, 9), (0.05, 19), (0.5, 1)])
def test_fewest_calibration_cases(level, fewest):
    assert selection.fewest_calibration_cases(level) == fewest
    for n, some in ((fewest, True), (fewest - 1, False)):
        found = selection.release([1.0] * 5, np.zeros(n), np.ones(n, bool), level)
        assert found.any() == some


def simulated(signal, n, level, repetitions=2000, m=30):
    """Returns share of bad cases among the released and share released, per cohort.

    Dice = score + noise, bad below 0.5: 31 % of the cases at a signal of 1.
    """
    rng = np.random.default_rng(0)
    bad_share, released_share = [], []
    for _ in range(repetitions):
        score = rng.uniform(0, 1, n + m)
        dice = 0.6 + signal * (score - 0.5) + rng.normal(0, 0.1, n + m)
        bad = dice < 0.5
        released = selection.release(score[n:], score[:n], bad[:n], level)
        count = released.sum()
        bad_share.append((released & bad[n:]).sum() / max(count, 1))
        released_share.append(count / m)
    return np.array(bad_share), np.array(released_share)


@pytest.mark.parametrize(("signal", "power"), [(1.0, 0.15), (0.3, 0.02)])
@pytest.mark.parametrize("n", [13, 50])
def test_the_share_of_bad_cases_among_the_released_is_kept(signal, power, n):
    bad, released = simulated(signal, n, level=0.1)
    error = bad.std() / np.sqrt(len(bad))
    assert bad.mean() <= 0.1 + 3 * error
    assert released.mean() > power
    # It can fail: releasing everything breaks the promise by far.
    assert simulated(signal, n, level=0.99)[0].mean() > 0.1 + 3 * error
