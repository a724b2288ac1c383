import numpy as np
import pytest

from unc_jax.study import calibration


def test_by_hand():
    p = np.array([[0.1, 0.3], [0.8, 1.0]], np.float64)
    y = np.array([[0, 1], [1, 0]], np.uint8)
    sums = calibration.sum_voxels(p, y, bins=2)
    # Below 0.5: mean p 0.2, frequency 0.5; above: 0.9 and 0.5. A p of 1 is in the last.
    found = calibration.calibration(sums)
    assert found.ece == pytest.approx(0.5 * 0.3 + 0.5 * 0.4)
    assert found.brier == pytest.approx((0.01 + 0.49 + 0.04 + 1.0) / 4)
    # The certain and wrong voxel counts as 1e-7, not as infinity.
    expected = -(np.log(0.9) + np.log(0.3) + np.log(0.8) + np.log(1e-7)) / 4
    assert found.nll == pytest.approx(expected)
    assert found.n == 4
    diagram = calibration.reliability(sums)
    assert diagram.probability == pytest.approx([0.2, 0.9])
    assert diagram.frequency == pytest.approx([0.5, 0.5])


def test_cases_add_up_to_all_voxels():
    rng = np.random.default_rng(0)
    p = rng.random((4, 5, 6)).astype(np.float32)
    y = rng.random((4, 5, 6)) < p
    whole = calibration.sum_voxels(p, y)
    parts = calibration.total(
        calibration.sum_voxels(a, b) for a, b in zip(p, y, strict=True)
    )
    for one, other in zip(whole, parts, strict=True):
        assert one == pytest.approx(other)


def test_only_the_voxels_asked_for():
    p, y = np.array([0.2, 0.9, 0.5]), np.array([0, 1, 1])
    chosen = calibration.sum_voxels(p, y, within=[True, True, False])
    assert calibration.calibration(chosen) == calibration.calibration(
        calibration.sum_voxels(p[:2], y[:2])
    )
    none = calibration.sum_voxels(p, y, within=np.zeros(3, bool))
    assert calibration.calibration(none) == (None, None, None, 0)
    assert np.isnan(calibration.reliability(none).frequency).all()


def test_calibrated_probabilities_have_little_error():
    rng = np.random.default_rng(1)
    p = rng.random(200_000)
    y = rng.random(200_000) < p
    good = calibration.calibration(calibration.sum_voxels(p, y))
    # A uniform p has Brier E p (1 - p) = 1/6 and NLL 1/2, its expected entropy.
    assert good.ece < 0.01
    assert good.brier == pytest.approx(1 / 6, abs=0.002)
    assert good.nll == pytest.approx(0.5, abs=0.005)
    sure = np.clip(1.6 * (p - 0.5) + 0.5, 0, 1)
    assert calibration.calibration(calibration.sum_voxels(sure, y)).ece > 0.05


@pytest.mark.parametrize("p", [[-0.1], [1.1], [float("nan")]])
def test_no_probability(p):
    with pytest.raises(ValueError, match=r"within 0 \.\.\. 1"):
        calibration.sum_voxels(p, [1])


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="differ"):
        calibration.sum_voxels([0.1, 0.2], [1])
