"""Windows over a volume, with functions in place of a network."""

import numpy as np
import pytest

from unc_jax.data import patches
from unc_jax.segmentation.sliding import build_sweep, plane_window

SHAPE = (10, 8, 6)
VOLUME = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)
GRID = {"outputs": 1, "patch_shape": (6, 4, 4), "overlap": 0.5, "window_batch": 5}


def test_a_window_function_that_copies_gives_the_volume():
    sweep = build_sweep(lambda w, places: w[None, ..., 0], **GRID)
    np.testing.assert_allclose(sweep(VOLUME)[0], VOLUME, atol=1e-6)


@pytest.mark.parametrize("batch", [1, 4, 7, 100])
def test_a_batch_is_filled_up_with_windows_that_do_not_count(batch):
    grid = {**GRID, "window_batch": batch}
    sweep = build_sweep(lambda w, places: w[None, ..., 0], **grid)
    np.testing.assert_allclose(sweep(VOLUME)[0], VOLUME, atol=1e-6)


def test_a_volume_smaller_than_a_window_is_continued_by_its_last_planes():
    seen = []

    def copy(windows, places):
        seen.append(windows.shape)
        return windows[None, ..., 0]

    grid = {**GRID, "patch_shape": (12, 4, 8), "window_batch": 1}
    assert build_sweep(copy, **grid)(VOLUME).shape == (1, *SHAPE)
    np.testing.assert_allclose(build_sweep(copy, **grid)(VOLUME)[0], VOLUME, atol=1e-6)
    assert {shape[1:4] for shape in seen} == {(12, 4, 8)}
    padded = np.pad(VOLUME, [(0, 2), (0, 0), (0, 2)], mode="edge")

    def total(windows, places):
        return windows.sum(axis=(1, 2, 3, 4)).reshape(1, -1, 1, 1, 1) + 0 * copy(
            windows, places
        )

    whole = {**grid, "patch_shape": (12, 8, 8)}
    found = build_sweep(total, **whole)(VOLUME)
    np.testing.assert_allclose(found, padded.sum(), rtol=1e-5)


@pytest.mark.parametrize(
    ("volume", "depth", "expected"),
    [
        ((256, 256, 256), 4, (256, 256, 16)),
        ((284, 256, 133), 4, (288, 256, 16)),
        ((36, 52, 36), 4, (40, 56, 16)),
        ((40, 56, 16), 3, (40, 56, 16)),
    ],
)
def test_one_window_covers_a_plane(volume, depth, expected):
    window = plane_window(volume, (24, 32, 16), depth)
    assert window == expected
    padded = patches.padded_shape(volume, window)
    corners = patches.window_corners(padded, window, 0.25)
    assert {tuple(corner[:2]) for corner in corners.tolist()} == {(0, 0)}
