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


@pytest.mark.parametrize(
    ("volume", "depth", "expected"),
    [
        ((256, 256, 256), 4, (256, 256, 16)),
        ((284, 256, 133), 4, (168, 256, 16)),  # two windows of 21 times 8 overlap by 52
        (
            (36, 52, 36),
            4,
            (24, 32, 16),
        ),  # in two
        ((40, 56, 16), 3, (40, 56, 16)),
    ],
)
def test_windows_of_a_plane(volume, depth, expected):
    patch, overlap = (24, 32, 16), (0.25, 0.25, 0.25)
    window = plane_window(volume, patch, overlap, depth)
    assert window == expected
    corners = patches.window_corners(volume, window, overlap)
    in_plane = {tuple(corner[:2]) for corner in corners.tolist()}
    sides = [1 if w == v else 2 for w, v in zip(window, volume, strict=True)]
    assert len(in_plane) == sides[0] * sides[1]
