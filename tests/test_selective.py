import itertools

import numpy as np
import pytest

from unc_jax.study import selective

NAN = float("nan")


def test_risk_coverage_by_hand():
    # Surest first: risks 0.1, then 0.5 and 0.2 tied, then 0.4.
    mean, generalised = selective.risk_coverage(
        [0.5, 0.1, 0.2, 0.4], [2.0, 3.0, 2.0, 1.0]
    )
    # The tie adds its mean, 0.35, twice: 0.1, 0.45, 0.8, 1.2 summed.
    assert mean == pytest.approx([0.1, 0.225, 0.8 / 3, 0.3])
    assert generalised == pytest.approx([0.025, 0.1125, 0.2, 0.3])


def test_areas_by_hand():
    found = selective.areas([0.5, 0.1, 0.2, 0.4], [2.0, 3.0, 2.0, 1.0])
    aurc = (0.1 + 0.225 + 0.8 / 3 + 0.3) / 4
    # Ordered by risk: 0.1, 0.2, 0.4, 0.5.
    best = (0.1 + 0.15 + 0.7 / 3 + 0.3) / 4
    assert found["aurc"] == pytest.approx(aurc)
    assert found["e_aurc"] == pytest.approx(aurc - best)
    # Trapezoids of width 1/4 over 0, 0.025, 0.1125, 0.2, 0.3.
    assert found["augrc"] == pytest.approx((0.025 + 0.1125 + 0.2 + 0.15) / 4)


def test_all_tied_is_the_mean_risk_whatever_the_order():
    # The usual public code gives 0.031 or 0.240 here, by the order of the cases.
    for risks in set(itertools.permutations([1.0, 0.0, 0.0, 0.0])):
        found = selective.areas(risks, [0.7] * 4)
        assert found["aurc"] == pytest.approx(0.25)
        assert found["augrc"] == pytest.approx(0.125)


def test_a_tie_is_the_mean_over_its_orders():
    risks = np.array([0.3, 0.9, 0.1, 0.6, 0.2])
    confidence = np.array([1.0, 0.5, 0.5, 0.5, 0.1])
    curves = [
        selective.risk_coverage(risks, confidence + np.array([0, *nudge, 0]))[0]
        for nudge in itertools.permutations([0.0, 0.01, 0.02])
    ]
    expected = np.mean(curves, axis=0)
    found = selective.risk_coverage(risks, confidence)[0]
    assert found == pytest.approx(expected)
    # With the tie broken in either way the result is another.
    assert not np.allclose(curves[0], found)


def test_augrc_of_failures_is_the_closed_form_with_ties():
    rng = np.random.default_rng(0)
    failed = rng.random(60) < 0.3
    confidence = np.round(rng.normal(size=60) - failed, 1)  # many ties
    auroc, failures = selective.failure_auroc(1.0 - failed, confidence, threshold=0.5)
    accuracy = 1 - failures / 60
    assert auroc is not None
    closed = (1 - auroc) * accuracy * (1 - accuracy) + (1 - accuracy) ** 2 / 2
    assert selective.areas(failed.astype(float), confidence)["augrc"] == pytest.approx(
        closed
    )


@pytest.mark.parametrize(
    ("confidence", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], (1.0, 2)),
        ([0.9, 0.8, 0.2, 0.1], (0.0, 2)),
        ([0.5, 0.5, 0.5, 0.5], (0.5, 2)),
        # Pairs (failure, other): two right, one tied, one wrong.
        ([0.2, 0.5, 0.5, 0.3], (2.5 / 4, 2)),
    ],
)
def test_failure_auroc_by_hand(confidence, expected):
    dice = [0.3, 0.4, 0.8, 0.9]
    assert selective.failure_auroc(dice, confidence, threshold=0.5) == expected


def test_failure_auroc_needs_both_kinds():
    assert selective.failure_auroc([0.8, 0.9], [1, 2], threshold=0.5) == (None, 0)
    assert selective.failure_auroc([0.1, 0.2], [1, 2], threshold=0.5) == (None, 2)
    # Exactly at the threshold is no failure.
    assert selective.failure_auroc([0.5, 0.4], [2, 1], threshold=0.5) == (1.0, 1)


def test_referral_by_hand():
    curve = selective.referral([0.9, 0.5, 0.7, 0.3], [4, 1, 3, 2])
    assert curve["referred"] == pytest.approx([0, 0.25, 0.5, 0.75])
    assert curve["kept_dice"] == pytest.approx([0.6, 1.9 / 3, 0.8, 0.9])
    assert curve["random_dice"] == pytest.approx([0.6] * 4)
    assert curve["oracle_dice"] == pytest.approx([0.6, 0.7, 0.8, 0.9])
    gain = selective.referral_gain([0.9, 0.5, 0.7, 0.3], [4, 1, 3, 2])
    assert gain == pytest.approx((0.1 / 3 + 0.2 + 0.3) / (0.1 + 0.2 + 0.3))


def test_referral_gain_ends():
    dice = [0.9, 0.5, 0.7, 0.3]
    assert selective.referral_gain(dice, dice) == pytest.approx(1.0)
    assert selective.referral_gain(dice, [1.0] * 4) == pytest.approx(0.0)
    assert selective.referral_gain([0.5, 0.5], [1, 2]) is None
    assert selective.referral_gain([], []) is None


def test_incomplete_cases_take_no_part():
    whole = selective.areas([0.5, 0.1], [1.0, 2.0])
    assert selective.areas([0.5, NAN, 0.1, 0.3], [1.0, 9.0, 2.0, NAN]) == whole
    assert set(selective.areas([NAN], [1.0]).values()) == {None}
    with pytest.raises(ValueError, match="equal lengths"):
        selective.areas([0.1, 0.2], [1.0])


@pytest.mark.parametrize("dice", [0.1, 0.7, 0.85])
def test_equal_dice_have_no_order_to_gain_by(dice):
    equal = np.full(30, dice)
    assert selective.referral_gain(equal, np.arange(30)) is None
