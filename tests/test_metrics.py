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
