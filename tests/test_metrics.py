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
    parts = (one & two, one & ~two, ~one & two)
    tp, fp, fn = (part.sum() for part in parts)
    assert found == pytest.approx(2 * tp / (2 * tp + fp + fn))


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


def energy_distance(samples, raters):
    packed = (np.packbits(np.asarray(one, bool), axis=-1) for one in (samples, raters))
    return metrics.generalised_energy_distance(*packed)


def test_energy_distance_by_hand():
    one, two, none = [1, 1, 0], [0, 1, 1], [0, 0, 0]  # IoU of one and two: 1/3
    # 2 mean(0, 2/3) - 2 (2/3) / 4 - 0
    assert energy_distance([one, two], [one]) == pytest.approx(2 / 3 - 1 / 3)
    # Against an empty mask the distance is 1, of two empty ones 0.
    assert energy_distance([one], [none]) == pytest.approx(2)
    assert energy_distance([none], [none]) == 0


def test_energy_distance_of_equal_sets_is_zero():
    masks = np.random.default_rng(0).random((4, 5, 5, 5)) < 0.5
    assert energy_distance(masks, masks[::-1]) == pytest.approx(0, abs=1e-12)
    # A set that never varies is further from it than one that does.
    assert energy_distance(masks[:1], masks) > 0.1


def test_energy_distance_is_its_formula():
    s, y = np.split(np.random.default_rng(1).random((7, 6, 5, 11)) < 0.4, [4])

    def mean(a, b):
        return np.mean([[1 - (p & q).sum() / (p | q).sum() for p in a] for q in b])

    expected = 2 * mean(s, y) - mean(s, s) - mean(y, y)
    assert energy_distance(s, y) == pytest.approx(expected)


def test_energy_distance_needs_masks_of_one_shape():
    with pytest.raises(ValueError, match="one shape"):
        energy_distance(np.ones((2, 3)), np.ones((2, 9)))
    with pytest.raises(ValueError, match="one shape"):
        energy_distance(np.ones((0, 3)), np.ones((2, 3)))


def test_calibration_by_hand():
    p = np.array([[0.1, 0.3], [0.8, 1.0]], np.float64)
    y = np.array([[0, 1], [1, 0]], np.uint8)
    sums = metrics.sum_voxels(p, y, bins=2)
    # Below 0.5: mean p 0.2, frequency 0.5; above: 0.9 and 0.5. A p of 1 is in the last.
    found = metrics.calibration(sums)
    assert found["ece"] == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)
    assert found["brier"] == pytest.approx((0.01 + 0.49 + 0.04 + 1.0) / 4)
    # The certain and wrong voxel counts as 1e-7, not as infinity.
    expected = -(np.log(0.9) + np.log(0.3) + np.log(0.8) + np.log(1e-7)) / 4
    assert found["nll"] == pytest.approx(expected)
    assert found["n"] == 4
    diagram = metrics.reliability(sums)
    assert diagram["probability"] == pytest.approx([0.2, 0.9])
    assert diagram["frequency"] == pytest.approx([0.5, 0.5])


def test_cases_add_up_to_all_voxels():
    rng = np.random.default_rng(0)
    p = rng.random((4, 5, 6)).astype(np.float32)
    y = rng.random((4, 5, 6)) < p
    whole = metrics.sum_voxels(p, y)
    parts = metrics.add_sums(
        [metrics.sum_voxels(a, b) for a, b in zip(p, y, strict=True)]
    )
    assert whole.keys() == parts.keys()
    for name, one in whole.items():
        assert one == pytest.approx(parts[name])


@pytest.mark.parametrize("size", [1, 5000, 40_000])
def test_sums_are_those_of_the_definition(size):
    """Of more voxels than are summed at once, most of them surely background."""
    rng = np.random.default_rng(size)
    p = (rng.random(size) ** 9).astype(np.float32)
    y = rng.random(size) < p
    found = metrics.sum_voxels(p, y, bins=4)
    p = p.astype(float)
    place = np.minimum((4 * p).astype(int), 3)
    count, total, true = (
        [w[place == b].sum() for b in range(4)] for w in (np.ones(size), p, y)
    )
    likelihood = np.maximum(np.where(y, p, 1 - p), 1e-7)
    assert found["count"] == count
    assert found["foreground"] == true
    assert found["probability"] == pytest.approx(total, rel=1e-9)
    assert found["squared_error"] == pytest.approx(((p - y) ** 2).sum(), rel=1e-9)
    assert found["log_loss"] == pytest.approx(-np.log(likelihood).sum(), rel=1e-9)


def test_sure_and_wrong_everywhere():
    sums = metrics.sum_voxels(np.ones(1000), np.zeros(1000))
    assert metrics.calibration(sums)["nll"] == pytest.approx(-math.log(1e-7))


def test_only_the_voxels_asked_for():
    p, y = np.array([0.2, 0.9, 0.5]), np.array([0, 1, 1])
    chosen = metrics.sum_voxels(p, y, within=[True, True, False])
    assert metrics.calibration(chosen) == metrics.calibration(
        metrics.sum_voxels(p[:2], y[:2])
    )
    none = metrics.sum_voxels(p, y, within=np.zeros(3, bool))
    assert metrics.calibration(none) == {
        "ece": None, "brier": None, "nll": None, "n": 0,
    }  # fmt: skip
    assert set(metrics.reliability(none)["frequency"]) == {None}


def test_calibrated_probabilities_have_little_error():
    rng = np.random.default_rng(1)
    p = rng.random(200_000)
    y = rng.random(200_000) < p
    good = metrics.calibration(metrics.sum_voxels(p, y))
    # A uniform p has Brier E p (1 - p) = 1/6 and NLL 1/2, its expected entropy.
    assert good["ece"] < 0.01
    assert good["brier"] == pytest.approx(1 / 6, abs=0.002)
    assert good["nll"] == pytest.approx(0.5, abs=0.005)
    sure = np.clip(1.6 * (p - 0.5) + 0.5, 0, 1)
    assert metrics.calibration(metrics.sum_voxels(sure, y))["ece"] > 0.05


@pytest.mark.parametrize("p", [[-0.1], [1.1], [float("nan")]])
def test_no_probability(p):
    with pytest.raises(ValueError, match=r"within 0 \.\.\. 1"):
        metrics.sum_voxels(p, [1])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ"):
        metrics.sum_voxels([0.1, 0.2], [1])
