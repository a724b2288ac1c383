import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unc_jax.data.preprocess import (
    bounding_box,
    box_of,
    moments,
    prepare_liver,
    prepare_tumor,
    window,
    zscore,
)
from unc_jax.data.resampling import restore

FLOATS = st.floats(-1e4, 1e4, width=32)


def along(values, axis):
    return np.moveaxis(np.asarray(values).reshape(-1, 1, 1), 0, axis)


def ramp(shape):
    x, y, z = (np.arange(size, dtype=np.float32) for size in shape)
    return x[:, None, None] + 10 * y[None, :, None] + 100 * z[None, None, :]


def test_window_of_three_voxels():
    windowed = window(np.array([-500, 60, 900], np.int16), -120.0, 240.0)
    assert windowed.dtype == np.float32
    assert windowed.tolist() == [-120.0, 60.0, 240.0]


def test_zscore_by_hand():
    scaled = zscore(np.array([1, 2, 3], np.int16), 2.0, 0.5)
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [-2.0, 0.0, 2.0]


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan"), float("inf")])
def test_zscore_refuses_a_set_without_spread(std):
    with pytest.raises(ValueError, match="no spread"):
        zscore(np.zeros(3), 0.0, std)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (240.0, -120.0)])
def test_window_refuses_an_empty_range(low, high):
    with pytest.raises(ValueError, match="empty"):
        window(np.zeros(3), low, high)


def test_bounding_box_by_hand():
    mask = np.zeros((5, 6, 7), bool)
    mask[1, 2, 3] = mask[3, 2, 6] = True
    assert bounding_box(mask) == (slice(1, 4), slice(2, 3), slice(3, 7))
    assert bounding_box(mask.astype(np.uint8)) == box_of([(1, 4), (2, 3), (3, 7)])
    with pytest.raises(ValueError, match="empty mask"):
        bounding_box(np.zeros((2, 2, 2), bool))


def test_prepare_liver_by_hand():
    image = along(np.int16([-1000, 40, 100, 1000]), 0)
    label = along(np.uint8([0, 0, 1, 2]), 0)
    windowed, target = prepare_liver(image, label, shape=(2, 1, 1))
    # Means of pairs, -480 and 550, then the window.
    assert windowed.ravel().tolist() == [-120.0, 240.0]
    assert windowed.dtype == np.float32
    assert target.ravel().tolist() == [0, 1]
    assert target.dtype == np.uint8
    raw, part = prepare_liver(
        image, label, shape=(4, 1, 1), window_hu=(), liver_labels=(2,)
    )
    assert raw.ravel().tolist() == image.ravel().tolist()
    assert part.ravel().tolist() == [0, 0, 0, 1]


def test_prepare_tumor_by_hand():
    image = along(np.int16([7, -900, 80, -100, 900, 7]), 0)
    label = along(np.uint8([0, 1, 0, 1, 2, 0]), 0)
    prepared = prepare_tumor(image, label, shape=(4, 1, 1))
    assert prepared.box == (slice(1, 5), slice(0, 1), slice(0, 1))
    # Inside clipped to -30 .. 200; outside -50, below the window and unsmeared.
    assert prepared.image.ravel().tolist() == [-30.0, -50.0, -30.0, 200.0]
    assert prepared.organ.ravel().tolist() == [True, False, True, True]
    assert prepared.target.ravel().tolist() == [0, 0, 0, 1]
    assert prepared.target.dtype == np.uint8


def test_prepare_tumor_of_mr():
    image = along(np.float32([5, 300, 1, 200]), 1)
    label = along(np.uint8([0, 1, 0, 2]), 1)
    prepared = prepare_tumor(
        image, label, shape=(1, 3, 1), window_hu=(), outside_hu=None
    )
    assert prepared.image.ravel().tolist() == [300.0, 200.0, 200.0]


def test_preparation_refuses_what_does_not_belong_together():
    image = np.zeros((3, 3, 3), np.int16)
    for prepare in (prepare_liver, prepare_tumor):
        with pytest.raises(ValueError, match="differ in shape"):
            prepare(image, np.zeros((3, 3, 4), np.uint8), shape=(2, 2, 2))
    with pytest.raises(ValueError, match="empty mask"):
        prepare_tumor(image, np.zeros((3, 3, 3), np.uint8), shape=(2, 2, 2))


def test_restore_undoes_the_preparation_of_a_smooth_image():
    image = ramp((30, 24, 18))
    label = np.zeros(image.shape, np.uint8)
    label[4:25, 3:20, 2:17] = 1
    prepared = prepare_tumor(image, label, shape=(12, 12, 12), window_hu=())
    restored = restore(prepared.image, image.shape, prepared.box, order=1, fill=-7.0)
    inside = tuple(slice(side.start + 1, side.stop - 1) for side in prepared.box)
    assert np.allclose(restored[inside], image[inside], atol=1e-2)
    assert (restored[label == 0] == -7).all()


def test_moments_by_hand():
    assert moments(np.array([[1, 2], [3, 4]])) == (4, 2.5, 5.0)
    assert moments(np.array([])).count == 0
    assert np.isnan(moments(np.array([])).std)
    assert moments(np.array([1.0, 3.0])).std == 1.0


@given(arrays(np.float32, 12, elements=FLOATS), st.integers(0, 12))
def test_moments_merge(values, cut):
    merged = moments(values[:cut]).merged(moments(values[cut:]))
    assert merged.count == 12
    assert np.isclose(merged.mean, values.mean(dtype=float), atol=1e-6)
    assert np.isclose(merged.std, values.std(dtype=float), atol=1e-6)


def test_moments_of_many_equal_signs_do_not_drift():
    values = np.full((64, 64, 64), 1e4, np.float32)
    values[::2] += 1
    assert np.isclose(moments(values).std, 0.5, rtol=1e-9)
