import numpy as np
import pytest

from unc_jax.study import raters


def test_disagreement_by_hand():
    masks = np.array([[[[1, 1, 0, 0]]], [[[1, 0, 0, 1]]], [[[1, 0, 0, 0]]]])
    expected = [0, 2 / 9, 0, 2 / 9]
    assert raters.disagreement(masks).ravel() == pytest.approx(expected)
    with pytest.raises(ValueError, match="needs two"):
        raters.disagreement(masks[:1])


def test_cross_correlation_is_pearsons():
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 3, 4, 5))
    expected = np.corrcoef(a.ravel(), b.ravel())[0, 1]
    assert raters.cross_correlation(a, b) == pytest.approx(expected)
    assert raters.cross_correlation(a, 3 * a + 1) == pytest.approx(1)
    assert raters.cross_correlation(a, -a) == pytest.approx(-1)


def test_cross_correlation_within_a_mask():
    a, b = np.array([[1.0, 2, 3, 9]]), np.array([[2.0, 4, 6, 0]])
    within = np.array([[True, True, True, False]])
    assert raters.cross_correlation(a, b, within=within) == pytest.approx(1)
    assert raters.cross_correlation(a, b) < 0
    assert raters.cross_correlation(a, np.zeros((1, 4))) is None
    assert raters.cross_correlation(a, b, within=np.zeros((1, 4), bool)) is None
    with pytest.raises(ValueError, match="different shapes"):
        raters.cross_correlation(a, b[0])


def test_energy_distance_by_hand():
    one, two, none = [1, 1, 0], [0, 1, 1], [0, 0, 0]  # IoU of one and two: 1/3
    # 2 mean(0, 2/3) - 2 (2/3) / 4 - 0
    found = raters.generalised_energy_distance([one, two], [one])
    assert found == pytest.approx(2 / 3 - 1 / 3)
    # Against an empty mask the distance is 1, of two empty ones 0.
    assert raters.generalised_energy_distance([one], [none]) == pytest.approx(2)
    assert raters.generalised_energy_distance([none], [none]) == 0


def test_energy_distance_of_equal_sets_is_zero():
    masks = np.random.default_rng(0).random((4, 5, 5, 5)) < 0.5
    same = raters.generalised_energy_distance(masks, masks[::-1])
    assert same == pytest.approx(0, abs=1e-12)
    # A set that never varies is further from it than one that does.
    assert raters.generalised_energy_distance(masks[:1], masks) > 0.1


def test_energy_distance_needs_masks_of_one_shape():
    with pytest.raises(ValueError, match="one shape"):
        raters.generalised_energy_distance(np.ones((2, 3)), np.ones((2, 4)))
    with pytest.raises(ValueError, match="one shape"):
        raters.generalised_energy_distance(np.ones((0, 3)), np.ones((2, 3)))
