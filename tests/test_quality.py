import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import coverage
from unc_jax.errors import InputError
from unc_jax.review import dice_map, quality
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.cases_table import new_row


def case(dice, d_pw, cv=None, u_labelled=None, split="train"):
    """A row whose three measures agree unless told otherwise."""
    cv = 1 - d_pw if cv is None else cv
    u_labelled = 1 - d_pw if u_labelled is None else u_labelled
    row = {"dice": dice, "d_pw": d_pw, "cv": cv, "u_labelled": u_labelled}
    return {**row, "split": split}


TRAIN = [case(0.5, 0.1), case(0.7, 0.2), case(0.6, 0.3), case(0.9, 0.4)]
HELD_OUT = [case(d, 0.4, split="validation") for d in (0.9, 0.8, 0.85, 0.7)]


def test_map_is_the_isotonic_regression():
    """0.7 and 0.6 fall, so both become their mean."""
    fitted = dice_map.fit_map(TRAIN)
    assert fitted.dice == pytest.approx([0.5, 0.65, 0.65, 0.9])
    # Mid-ranks among four cases: 0.5, 1.5, 2.5, 3.5 of 4.
    assert fitted.scores == pytest.approx([0.125, 0.375, 0.625, 0.875])
    assert dice_map.map_dice(fitted, case(0, 0.1)) == pytest.approx(0.5)
    assert dice_map.map_dice(fitted, case(0, 0.9)) == pytest.approx(0.9)  # level beyond
    between = case(0, 0.35)  # rank 3 of 4: half way between 0.625 and 0.875
    assert dice_map.map_dice(fitted, between) == pytest.approx((0.65 + 0.9) / 2)


def test_ties_weigh_as_many_cases_as_they_are():
    fitted = dice_map.fit_map([case(0.9, 0.1), case(0.8, 0.1), case(0.5, 0.2)])
    assert fitted.dice == pytest.approx([2.2 / 3, 2.2 / 3])


def test_bound_is_the_right_order_statistic():
    """Residuals of the four held-out cases: 0, 0.1, 0.05, 0.2."""
    found = quality.fit(TRAIN + HELD_OUT)
    assert sorted(found.residuals) == pytest.approx([0, 0.05, 0.1, 0.2])
    # k = ceil(5 * 0.8) = 4: the largest; ceil(5 * 0.6) = 3.
    good = case(0, 0.4)
    assert quality.predict(found, good, 0.8).lower == pytest.approx(0.7)
    assert quality.predict(found, good, 0.6).lower == pytest.approx(0.8)
    nothing = quality.predict(found, good, 0.81)
    assert nothing.predicted == pytest.approx(0.9)
    assert math.isnan(nothing.lower)


def test_the_bound_is_never_above_the_prediction():
    """Calibration cases may be better than the map says."""
    better = [{**row, "dice": row["dice"] + 0.05} for row in TRAIN]
    found = quality.fit([*TRAIN, *({**row, "split": "validation"} for row in better)])
    assert max(found.residuals) < 0
    told = quality.predict(found, TRAIN[0], 0.5)
    assert told.lower == told.predicted


def test_a_case_of_another_number_of_samples_has_no_bound():
    rows = [{**row, "n_samples": 10} for row in TRAIN + HELD_OUT]
    found = quality.fit(rows)
    assert found.samples == (10,)
    row = new_row(REVIEW_COLUMNS, case="a", status="ok", n_samples=10, d_pw=0.4)
    row |= {"cv": 0.6, "u_labelled": 0.6}
    same = quality.with_estimate(row, found, 0.8)
    other = quality.with_estimate({**row, "n_samples": 9}, found, 0.8)
    assert same["dice_lower"] == pytest.approx(0.7)
    assert other["dice_lower"] is None
    assert other["predicted_dice"] == same["predicted_dice"]
    assert (same["unlike"], other["unlike"]) == ("", "number of samples")
    assert quality.with_estimate(other, found, 0.8) == other


@pytest.mark.parametrize(
    ("change", "unlike", "bound"),
    [
        ({}, "", True),
        ({"u_labelled": None}, "missing measures", False),
        ({"unlike": "identical samples"}, "identical samples", False),
        ({"unlike": "volume_ml"}, "volume_ml", False),
        ({"unlike": "cv"}, "cv", True),
    ],
)
def test_no_bound_for_what_no_calibration_case_is(change, unlike, bound):
    row = new_row(REVIEW_COLUMNS, case="a", status="ok", d_pw=0.4, cv=0.6)
    row |= {"u_labelled": 0.6, **change}
    found = quality.with_estimate(row, quality.fit(TRAIN + HELD_OUT), 0.8)
    assert (found["unlike"], found["dice_lower"] is not None) == (unlike, bound)
    assert found["predicted_dice"] is not None


def test_a_map_without_calibration_has_no_bound_and_says_so():
    found = quality.without_calibration(quality.fit(TRAIN + HELD_OUT))
    predicted = quality.predict(found, case(0, 0.4), 0.8)
    assert predicted.predicted == pytest.approx(0.9)
    assert math.isnan(predicted.lower)
    assert quality.supported_level(found, 0.8) == 0.8
    assert quality.bound_words(found, 0.8).startswith("No lower bounds of Dice")


def test_level_that_the_papers_validation_set_supports():
    assert quality.greatest_level(13) == pytest.approx(13 / 14)


def test_test_cases_take_no_part():
    hidden = [case(0.0, 0.99, split="test") for _ in range(5)]
    assert quality.fit(TRAIN + HELD_OUT + hidden) == quality.fit(TRAIN + HELD_OUT)


def test_own_calibration_cases_replace_the_validation_cases():
    own = [{**case(0.5, 0.4), "split": None} for _ in range(3)]
    found = quality.fit(TRAIN + HELD_OUT, calibration=own)
    assert found.residuals == pytest.approx([0.4] * 3)


def test_cross_residuals_are_of_maps_without_the_case():
    """Three cases, a fold each: each map is fitted to the two others."""
    rows = [case(d, m, split="") for d, m in ((0.5, 0.1), (0.7, 0.2), (0.9, 0.3))]
    found = quality.fit(rows)
    # Below both others: their lower Dice, 0.7. Between: 0.7. Above: 0.7.
    assert found.residuals == pytest.approx([0.2, 0.0, -0.2])
    assert found.method == "cross"


_NUMBER = st.floats(0, 1, allow_nan=False)


@given(
    st.lists(st.tuples(_NUMBER, _NUMBER, _NUMBER, _NUMBER), min_size=3, max_size=12),
    st.tuples(_NUMBER, _NUMBER, _NUMBER),
    st.tuples(_NUMBER, _NUMBER, _NUMBER),
)
def test_better_measures_never_lower_the_prediction(rows, measures, change):
    fitted = dice_map.fit_map([case(*row) for row in rows])
    d_pw, cv, u = measures
    worse = dice_map.map_dice(fitted, case(0, d_pw, cv, u))
    better = case(0, d_pw + change[0], cv - change[1], u - change[2])
    assert 0 <= worse <= dice_map.map_dice(fitted, better) + 1e-12 <= 1 + 1e-12


def test_undefined_measure_counts_as_the_worst():
    fitted = dice_map.fit_map(TRAIN)
    unknown = {"d_pw": None, "cv": math.nan, "u_labelled": None}
    assert dice_map.map_dice(fitted, unknown) == pytest.approx(0.5)


def test_coverage_holds_on_exchangeable_cases():
    """Two thousand draws of 13 calibration cases and one new case, seeded."""
    rng = np.random.default_rng(0)
    fitted = dice_map.fit_map(TRAIN)
    covered = 0
    for _ in range(2000):
        d_pw, noise = rng.uniform(0, 0.5, 14), rng.normal(0, 0.1, 14)
        rows = [case(0.5 + d + e, d) for d, e in zip(d_pw, noise, strict=True)]
        residuals = quality.fit(
            TRAIN, calibration=[{**row, "split": None} for row in rows[:13]]
        ).residuals
        found = quality.Quality("split", residuals, [], [], fitted, ())
        covered += quality.predict(found, rows[13], 0.9).lower <= rows[13]["dice"]
    # k = 13 of 13: the exact coverage is 13 / 14 = 0.929; four standard errors.
    assert covered / 2000 == pytest.approx(13 / 14, abs=0.024)


def test_no_training_case_calibrates():
    """The same map; residuals of the validation cases alone, however few they are."""
    found = quality.fit(TRAIN * 10 + HELD_OUT)
    assert found.method == "split"
    assert found.dice == [row["dice"] for row in HELD_OUT]
    assert len(found.residuals) == len(found.scores) == 4


def test_the_record_is_plain_json():
    found = quality.fit(TRAIN + HELD_OUT)
    stored = json.loads(json.dumps(quality.to_json(found)))
    expected = {**found._asdict(), "map": found.map._asdict(), "samples": []}
    assert stored == expected


@pytest.mark.parametrize(("asked", "used"), [(0.9, 0.8), (0.8, 0.8), (0.6, 0.6)])
def test_too_few_cases_lower_the_level_and_say_so(asked, used):
    found = quality.fit(TRAIN + HELD_OUT)
    assert quality.supported_level(found, asked) == used
    assert not math.isnan(quality.predict(found, case(0, 0.4), used).lower)
    words = quality.bound_words(found, asked)
    assert words.startswith(f"Lower bounds of Dice hold at level {used}")
    assert ("asked for" in words) == (asked > used)


def test_too_few_cases_are_refused():
    with pytest.raises(InputError, match=r"2 cases .* to calibrate"):
        quality.fit(TRAIN + HELD_OUT[:2])
    with pytest.raises(InputError, match=r"0 cases .* to fit"):
        quality.fit([case(None, 0.5)] * 5)


@pytest.mark.parametrize(("gap", "low"), [(0.0, False), (0.1, True)])
def test_the_benchmark_of_coverage_can_fail(gap, low):
    """Calibration cases that are better than the test cases, as training cases are."""
    rng = np.random.default_rng(0)
    train, calibration, test = coverage.cohort(rng, (63, 40, 100), gap=0.0)
    better = [{**row, "dice": row["dice"] + gap} for row in calibration]
    model = quality.fit([*train, *better])
    assert coverage.of_one_split(model, test, 0.9).is_low(rows=10) == low
    lower = [quality.predict(model, row, 0.9).lower for row in test]
    covered = [bool(row["dice"] >= x) for row, x in zip(test, lower, strict=True)]
    assert coverage.of_repetitions(covered, 40, 0.9).is_low(rows=10) == low


def test_calibrated_with_the_dice_of_the_delivered_masks():
    rows = [case(0.5, 0.1 * i) for i in range(6)]
    rows += [case(0.5, 0.1 * i, split="validation") for i in range(6)]
    delivered = [{**row, "dice_scan": 0.7} for row in rows]
    found = quality.fit(delivered)
    assert found.dice == pytest.approx([0.7] * 6)
    assert found.map.dice == pytest.approx([0.7] * 6)
    assert quality.fit([*delivered[:-1], rows[-1]]).dice == pytest.approx([0.5] * 6)
