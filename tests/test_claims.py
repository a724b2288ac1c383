import numpy as np
import pytest

from unc_jax.study import claims
from unc_jax.study.claims import Claim
from unc_jax.study.statistics import Estimate
from unc_jax.study.strength import Cell, Pair


def cell(loss="wcc", size="large", measure="d_pw", target="liver"):
    return Cell(target, loss, size, "", measure)


def estimate(value, spread=0.01, seed=0):
    draws = value + spread * np.random.default_rng(seed).normal(size=999)
    return Estimate(value, draws)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        # (m - i) p in rising order: 3 x 0.01, 2 x 0.02, 1 x 0.03 kept at 0.04.
        ([0.03, 0.01, 0.02], [0.04, 0.03, 0.04]),
        ([0.5, 0.6], [1.0, 1.0]),
        ([0.01, None, 0.04], [0.02, None, 0.04]),
        ([None], [None]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values, expected):
    adjusted = claims.holm(p_values)
    assert [p is None for p in adjusted] == [p is None for p in expected]
    assert [p for p in adjusted if p is not None] == pytest.approx(
        [p for p in expected if p is not None]
    )


def judge(strengths, wanted=claims.CLAIMS):
    """Verdicts where all cells have the same 30 cases."""
    return claims.judge(
        strengths, lambda one, two: Pair(strengths[one], strengths[two], 30), wanted
    )


def verdict_of(text, strengths):
    (found,) = [v for v in judge(strengths) if v["claim"] == text]
    return found


def test_a_contrast_is_the_mean_over_matched_pairs():
    strengths = {
        cell("wcc", "large"): estimate(0.9, seed=1),
        cell("dice", "large"): estimate(0.7, seed=2),
        cell("wcc", "small"): estimate(0.8, seed=3),
        cell("dice", "small"): estimate(0.7, seed=4),
        cell("wcc", "medium"): estimate(0.1, seed=5),  # without a partner
    }
    found = verdict_of("Table 1, wcc > soft Dice", strengths)
    assert found["pairs"] == 2
    assert found["value"] == pytest.approx((0.2 + 0.1) / 2)
    assert found["verdict"] == "supported"
    assert found["p_holm"] > found["p_bootstrap"]  # other claims were tested too
    large = verdict_of("Table 1, large > small", strengths)
    assert (large["pairs"], large["value"]) == (2, pytest.approx(0.05))


@pytest.mark.parametrize(
    ("difference", "spread", "verdict"),
    [
        (0.2, 0.01, "supported"),
        (-0.2, 0.01, "not supported"),
        (0.2, 0.5, "undecided"),
        (-0.2, 0.5, "undecided"),
    ],
)
def test_verdicts(difference, spread, verdict):
    strengths = {
        cell(measure="d_pw"): estimate(0.5 + difference, spread, seed=1),
        cell(measure="cv"): estimate(0.5, spread, seed=2),
    }
    found = verdict_of("Table 1, D_pw > CV", strengths)
    assert found["verdict"] == verdict
    assert f"{verdict} (difference {difference:+.2f}, 95 %" in found["sentence"]
    assert found["sentence"].endswith("1 paired comparison of 30 cases).")


def test_nothing_to_test_with():
    everything = judge({})
    assert {one["verdict"] for one in everything} == {"not tested"}
    assert all("not tested" in one["sentence"] for one in everything)
    undefined = {cell(measure="d_pw"): Estimate(None, np.full(9, np.nan))}
    found = verdict_of("Table 1, D_pw tells good from bad", undefined)
    assert (found["verdict"], found["p_holm"]) == ("not tested", None)
    # One model without a value does not hide what the other says.
    both = {**undefined, cell("dice"): estimate(0.5)}
    assert verdict_of("Table 1, D_pw tells good from bad", both)["pairs"] == 1


def test_a_claim_stays_within_its_target():
    strengths = {
        cell("wcc", target="tumor"): estimate(0.9),
        cell("dice", target="liver"): estimate(0.1),
    }
    assert verdict_of("Table 1, wcc > soft Dice", strengths)["pairs"] == 0
    assert verdict_of("Table 2, wcc > soft Dice", strengths)["pairs"] == 0
    # Loss differs too, so even the claim across targets has no pair.
    assert verdict_of("Table 2 > Table 1", strengths)["pairs"] == 0


def test_holm_counts_only_the_claims_tested():
    strengths = {cell(): estimate(0.9)}
    one = Claim("one", {"measure": "d_pw"}, {})
    absent = Claim("absent", {"measure": "cv"}, {})
    alone = judge(strengths, [one])[0]
    with_absent = judge(strengths, [one, absent])[0]
    twice = judge(strengths, [one, one])[0]
    assert alone["p_holm"] == with_absent["p_holm"] == alone["p_bootstrap"]
    assert twice["p_holm"] == pytest.approx(2 * alone["p_bootstrap"])


@pytest.mark.parametrize(
    "unknown",
    [Estimate(None, np.full(999, np.nan)), Estimate(0.4, np.full(999, np.nan))],
)
def test_a_model_of_too_few_cases_voids_no_claim(unknown):
    text = "Table 1, D_pw tells good from bad"
    strengths = {cell(): estimate(0.6)}
    alone = verdict_of(text, strengths)
    assert alone["verdict"] == "supported"
    beside = verdict_of(text, {**strengths, cell(loss="dice"): unknown})
    assert beside == alone
