import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays

from unc_jax.study import metrics


def mask(*values):
    return np.array(values, bool).reshape(-1, 1, 1)


@pytest.mark.parametrize(
    ("prediction", "reference", "expected"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 1.0),
        ([1, 1, 0, 0], [0, 0, 1, 1], 0.0),
        ([1, 1, 0, 0], [0, 1, 1, 0], 0.5),
        ([1, 1, 1, 1], [0, 0, 0, 1], 0.4),
        ([0, 0, 0, 0], [0, 1, 0, 0], 0.0),
        ([0, 1, 0, 0], [0, 0, 0, 0], 0.0),
    ],
)
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_dice_by_hand(prediction, reference, expected, dtype):
    found = metrics.dice(mask(*prediction).astype(dtype), mask(*reference))
    assert isinstance(found, float)
    assert found == expected


def test_dice_of_two_empty_masks_is_undefined():
    assert math.isnan(metrics.dice(mask(0, 0), mask(0, 0)))


def test_dice_takes_device_arrays():
    assert metrics.dice(jnp.array([True, False]), jnp.array([1, 1])) == 2 / 3


def test_dice_refuses_other_shapes_even_if_they_broadcast():
    with pytest.raises(ValueError, match="different shapes"):
        metrics.dice(np.ones((2, 2, 1)), np.ones((2, 2, 2)))


@pytest.mark.parametrize("value", [0.3, 2.0, math.nan])
def test_dice_refuses_what_is_no_mask(value):
    with pytest.raises(ValueError, match="threshold"):
        metrics.dice(np.array([value, 1.0]), np.array([1, 1]))


@settings(deadline=None, max_examples=30)
@given(one=arrays(bool, (3, 2, 4)), two=arrays(bool, (3, 2, 4)))
def test_dice_is_symmetric_bounded_and_made_of_the_agreement(one, two):
    found = metrics.dice(one, two)
    if not (one.any() or two.any()):
        assert math.isnan(found)
        return
    assert 0 <= found <= 1
    assert found == metrics.dice(two, one)
    tp, fp, fn = (part.sum() for part in metrics.agreement(one, two))
    assert found == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_agreement_by_hand():
    parts = metrics.agreement(mask(1, 1, 0, 0), mask(1, 0, 1, 0))
    assert [part.ravel().tolist() for part in parts] == [
        [True, False, False, False],
        [False, True, False, False],
        [False, False, True, False],
    ]


def test_volume():
    assert metrics.volume_ml(mask(1, 0, 1, 1), 0.5) == 1.5
    assert metrics.volume_ml(mask(0, 0), 0.5) == 0.0


def test_disagreement_by_hand():
    masks = np.array([[[[1, 1, 0, 0]]], [[[1, 0, 0, 1]]], [[[1, 0, 0, 0]]]])
    expected = [0, 2 / 9, 0, 2 / 9]
    assert metrics.disagreement(masks).ravel() == pytest.approx(expected)
    with pytest.raises(ValueError, match="needs two"):
        metrics.disagreement(masks[:1])


def test_cross_correlation_is_pearsons():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 4, 5))
    expected = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert metrics.cross_correlation(a, b) == pytest.approx(expected)
    assert metrics.cross_correlation(a, 3 * a + 1) == pytest.approx(1)
    assert metrics.cross_correlation(a, -a) == pytest.approx(-1)


def test_cross_correlation_within_a_mask():
    a, b = np.array([[1.0, 2, 3, 9]]), np.array([[2.0, 4, 6, 0]])
    within = np.array([[True, True, True, False]])
    assert metrics.cross_correlation(a, b, within=within) == pytest.approx(1)
    assert metrics.cross_correlation(a, b) < 0
    assert metrics.cross_correlation(a, np.zeros((1, 4))) is None
    assert metrics.cross_correlation(a, b, within=np.zeros((1, 4), bool)) is None
    with pytest.raises(ValueError, match="different shapes"):
        metrics.cross_correlation(a, b[0])


def test_energy_distance_by_hand():
    one, two, none = [1, 1, 0], [0, 1, 1], [0, 0, 0]  # IoU of one and two: 1/3
    # 2 mean(0, 2/3) - 2 (2/3) / 4 - 0
    found = metrics.generalised_energy_distance([one, two], [one])
    assert found == pytest.approx(2 / 3 - 1 / 3)
    # Against an empty mask the distance is 1, of two empty ones 0.
    assert metrics.generalised_energy_distance([one], [none]) == pytest.approx(2)
    assert metrics.generalised_energy_distance([none], [none]) == 0


def test_energy_distance_of_equal_sets_is_zero():
    masks = np.random.default_rng(0).random((4, 5, 5, 5)) < 0.5
    same = metrics.generalised_energy_distance(masks, masks[::-1])
    assert same == pytest.approx(0, abs=1e-12)
    # A set that never varies is further from it than one that does.
    assert metrics.generalised_energy_distance(masks[:1], masks) > 0.1


def test_energy_distance_needs_masks_of_one_shape():
    with pytest.raises(ValueError, match="one shape"):
        metrics.generalised_energy_distance(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="one shape"):
        metrics.generalised_energy_distance(np.ones((0, 3)), np.ones((2, 3)))
