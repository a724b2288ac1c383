import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from unc_jax.data import nifti
from unc_jax.data.preprocess import box_of, prepare_liver
from unc_jax.data.resampling import cropped_affine, resample, resampled_affine, restore

SIZES = st.tuples(*[st.integers(1, 9)] * 3)


def along(values, axis):
    return np.moveaxis(np.asarray(values).reshape(-1, 1, 1), 0, axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        ([0, 1], [0, 0.25, 0.75, 1]),  # centres at -0.25, 0.25, 0.75, 1.25
        ([0, 2, 4, 6], [1, 5]),  # centres at 0.5 and 2.5
        ([0, 3, 6], [0.75, 5.25]),  # centres at 0.25 and 1.75
        ([4], [4, 4, 4]),
        ([1, 5, 2], [1, 5, 2]),
    ],
)
def test_linear_by_hand(axis, given_values, expected):
    shape = [1, 1, 1]
    shape[axis] = len(expected)
    resampled = resample(along(np.int16(given_values), axis), shape, 1)
    assert resampled.dtype == np.float32
    assert np.allclose(resampled, along(expected, axis), atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("given_values", "expected"),
    [
        ([0, 1], [0, 0, 1, 1]),
        ([7, 1, 2, 3], [1, 3]),  # centres half way: the upper neighbours
        ([0, 1, 2], [0, 2]),
        ([5, 6, 7, 8, 9], [5, 7, 9]),  # centres at 0.33, 2, 3.67
    ],
)
def test_nearest_by_hand(axis, given_values, expected):
    shape = [1, 1, 1]
    shape[axis] = len(expected)
    resampled = resample(along(np.uint8(given_values), axis), shape, 0)
    assert resampled.dtype == np.uint8
    assert np.array_equal(resampled, along(expected, axis))


@given(arrays(np.int16, SIZES), SIZES)
def test_linear_agrees_with_scipy(volume, shape):
    zoom = [b / a for a, b in zip(volume.shape, shape, strict=True)]
    expected = ndimage.zoom(
        volume.astype(np.float64), zoom, order=1, mode="nearest", grid_mode=True
    )
    # A float32 blend of int16 is exact to half a unit in 2^24, three times over.
    assert np.allclose(resample(volume, shape, 1), expected, atol=2e-2)


@given(SIZES, SIZES, st.integers(-1024, 3071))
def test_a_constant_stays_constant(shape, new_shape, value):
    volume = np.full(shape, value, np.int16)
    for order in (0, 1):
        assert (resample(volume, new_shape, order) == value).all()


@given(st.integers(1, 40), st.integers(1, 40))
def test_the_mean_of_a_ramp_is_kept(size, new_size):
    # Edges are aligned, so the places lie symmetrically about the middle.
    resampled = resample(np.arange(size).reshape(-1, 1, 1), (new_size, 1, 1), 1)
    assert np.isclose(resampled.mean(), (size - 1) / 2, rtol=1e-5)


@given(arrays(np.uint8, SIZES), SIZES)
def test_nearest_invents_no_label(volume, shape):
    assert set(np.unique(resample(volume, shape, 0))) <= set(np.unique(volume))


@pytest.mark.parametrize("order", [0, 1])
@pytest.mark.parametrize("axes", list(itertools.permutations(range(3))))
def test_memory_order_does_not_matter(axes, order):
    # 64^3 voxels: large enough for several threads.
    volume = np.random.default_rng(0).integers(-999, 999, (40, 33, 65), np.int16)
    expected = resample(volume, (64, 64, 64), order)
    stored = np.ascontiguousarray(volume.transpose(axes))
    for flips in itertools.product([1, -1], repeat=3):
        steps = tuple(slice(None, None, flip) for flip in flips)
        view = np.ascontiguousarray(stored[steps])[steps].transpose(np.argsort(axes))
        assert np.array_equal(view, volume)
        # The axes are blended in another sequence: equal but for rounding.
        assert np.allclose(resample(view, (64, 64, 64), order), expected, atol=1e-3)


def test_a_neighbour_without_weight_has_no_say():
    volume = np.array([1.0, np.nan, 3.0], np.float32).reshape(3, 1, 1)
    resampled = resample(volume, (9, 1, 1), 1).ravel()
    assert np.isnan(resampled).tolist() == [0, 0, 1, 1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("shape", "new_shape", "order"),
    [((2, 2, 2), (2, 2, 2), 3), ((2, 2), (2, 2), 1), ((2, 2, 2), (2, 0, 2), 1)],
)
def test_resample_refuses(shape, new_shape, order):
    with pytest.raises(ValueError, match=r"order|cannot resample"):
        resample(np.zeros(shape), new_shape, order)


def test_restore_puts_a_volume_into_its_box():
    box = box_of([(1, 3), (2, 6), (0, 1)])
    restored = restore(np.ones((1, 2, 1), np.uint8), (4, 7, 2), box, order=0, fill=9)
    assert restored.dtype == np.uint8
    assert (restored[box] == 1).all()
    assert (restored == 9).sum() == restored.size - 2 * 4 * 1
    with pytest.raises(ValueError, match="leaves the scan"):
        restore(np.ones((1, 1, 1)), (2, 7, 2), box, order=0, fill=0)


@given(SIZES, st.integers(1, 4))
def test_restore_undoes_a_whole_number_of_times(shape, factor):
    labels = np.random.default_rng(0).integers(0, 3, shape, np.uint8)
    finer = [factor * size for size in shape]
    whole = box_of([(0, size) for size in shape])
    restored = restore(resample(labels, finer, 0), shape, whole, order=0, fill=0)
    assert np.array_equal(restored, labels)


@given(SIZES, SIZES)
@settings(max_examples=30)
def test_affines_keep_the_outer_corners(shape, new_shape):
    affine = np.array(
        [[-0.7, 0.1, 0, 9], [0.1, 0.8, 0.2, -4], [0, -0.1, 2.5, 70], [0, 0, 0, 1]]
    )
    box = box_of([(3, 3 + size) for size in shape])
    prepared = resampled_affine(cropped_affine(affine, box), shape, new_shape)
    for corner in itertools.product([0, 1], repeat=3):
        before = [
            3 + size * side - 0.5 for size, side in zip(shape, corner, strict=True)
        ]
        after = [
            size * side - 0.5 for size, side in zip(new_shape, corner, strict=True)
        ]
        assert np.allclose(affine @ [*before, 1], prepared @ [*after, 1])


@pytest.mark.parametrize("spacing_mm", [(0.75, 0.75, 1.0), (0.6, 0.6, 5.0)])
def test_volume_of_an_ellipsoid_is_kept(spacing_mm):
    shape = [int(180 / step) for step in spacing_mm]
    x, y, z = (
        (np.arange(size) - size / 2 + 0.3) * step
        for size, step in zip(shape, spacing_mm, strict=True)
    )
    radius = (x[:, None, None] / 80) ** 2 + (y[None, :, None] / 60) ** 2
    label = (radius + (z[None, None, :] / 70) ** 2 < 1).astype(np.uint8)
    _, target = prepare_liver(label, label, shape=(96, 96, 96))
    scale = label.size / target.size
    assert abs(target.sum() * scale / label.sum() - 1) < 0.01


@pytest.mark.real
@pytest.mark.parametrize("number", [0, 16, 28, 90])
def test_volume_of_a_true_liver_is_kept(real_data, number):
    path = real_data / "lits_liver_masks" / f"LiTS-{number}.nii.gz"
    mask = (nifti.read(path, labels=True).array > 0).astype(np.uint8)
    target = resample(mask, (256, 256, 256), 0)
    assert abs(target.sum() * (mask.size / target.size) / mask.sum() - 1) < 0.01
