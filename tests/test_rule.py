import math

import numpy as np
import pytest

from unc_jax.errors import InputError
from unc_jax.review import rule
from unc_jax.review.rule import Rule
from unc_jax.study import cases_table
from unc_jax.study.cases_table import REVIEW_COLUMNS


def row(status="ok", lower=0.95, predicted=0.95, unlike=""):
    return cases_table.new_row(
        REVIEW_COLUMNS,
        case="a",
        status=status,
        dice_lower=lower,
        predicted_dice=predicted,
        unlike=unlike,
    )


@pytest.mark.parametrize(
    ("one", "wanted", "flag", "reason"),
    [
        (row(lower=0.899), Rule(0.9), "yes", "lower bound 0.899 < 0.9"),
        (row(lower=0.83), Rule(0.9), "yes", "lower bound 0.830 < 0.9"),
        (row(lower=0.9), Rule(0.9), "no", ""),
        (row(lower=None), Rule(0.9, level=0.95), "yes", "no lower bound at level 0.95"),
        (row(lower=None), Rule(), "no", ""),
        (row(unlike="cv"), Rule(), "yes", "unlike the training cases: cv"),
        (row("empty", None, None), Rule(), "yes", "empty segmentation"),
        (row("no_liver", None, None), Rule(), "yes", "no liver found"),
        (row("failed: truncated", None, None), Rule(0.9), "yes", "failed"),
    ],
)
def test_reasons(one, wanted, flag, reason):
    decided = rule.decide([one], wanted)[0]
    assert (decided["flag"], decided["reason"]) == (flag, reason)


def test_the_worst_fraction_is_flagged_with_ties():
    rows = [row(predicted=p) for p in (0.9, 0.5, 0.7, 0.7, None)]
    decided = rule.decide(rows, Rule(review_fraction=0.6))
    assert [one["flag"] for one in decided] == ["no", "yes", "yes", "yes", "yes"]
    assert decided[1]["reason"] == "worst 60 %"
    assert {one["flag"] for one in rule.decide(rows, Rule(review_fraction=0.0))} == {
        "no"
    }


def test_threshold_for_cases_to_come():
    predicted = [0.9, 0.5, 0.7, 0.8, 0.6, 0.95, 0.85, 0.75, 0.65, math.nan]
    assert rule.threshold(predicted, 0.1) == -1  # the undefined one
    assert rule.threshold(predicted, 0.3) == 0.6
    assert rule.threshold(predicted, 0.25) == 0.6  # at least the fraction
    assert rule.threshold(predicted, 0) == rule.threshold([], 0.5) == -math.inf


def test_appraisal_by_hand():
    dice = [0.5, 0.95, 0.7, 0.92, np.nan]
    found = rule.appraise(dice, [True, True, False, False, True], 0.9)
    assert found == {
        "n": 4,
        "target_dice": 0.9,
        "failures": 2,
        "sensitivity": 0.5,
        "flagged": 2,
        "saved": 0.5,
        "dice_all": pytest.approx(0.7675),
        "dice_kept": pytest.approx(0.81),
        "dice_kept_random": pytest.approx(0.7675),
        "dice_kept_oracle": pytest.approx(0.935),
    }


def test_appraisal_of_nothing_is_undefined():
    found = rule.appraise([0.95, 0.99], [True, True], 0.9)
    assert found["sensitivity"] is None
    assert found["dice_kept"] is found["dice_kept_random"] is None
    assert found["dice_kept_oracle"] is None
    assert found["saved"] == 0


@pytest.mark.parametrize(
    "wanted", [Rule(0.0), Rule(1.1), Rule(review_fraction=2), Rule(level=1.0)]
)
def test_senseless_rules_are_refused(wanted):
    with pytest.raises(InputError, match="must lie in"):
        rule.check(wanted)


def test_worst_come_first():
    rows = [
        {**row(lower=lower, predicted=predicted), "case": case, "flag": flag}
        for case, flag, lower, predicted in (
            ("fine", "no", 0.9, 0.95),
            ("flagged", "yes", 0.99, 0.99),
            ("unbounded", "yes", None, 0.9),
            ("worse", "yes", 0.2, 0.9),
            ("better", "no", 0.95, 0.95),
        )
    ]
    broken = row("failed: truncated", None, None)
    rows.insert(4, {**broken, "case": "broken", "flag": "yes"})
    names = [one["case"] for one in rule.order(rows)]
    assert names == ["broken", "unbounded", "worse", "flagged", "fine", "better"]
