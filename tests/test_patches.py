import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unc_jax.data import patches
from unc_jax.errors import InputError

SIZES = st.tuples(*[st.tuples(st.integers(1, 12), st.integers(1, 12))] * 3)


def test_corners_of_one_axis_by_hand():
    corners = patches.window_corners((10, 1, 1), (5, 1, 1), 0.4)
    assert corners[:, 0].tolist() == [0, 3, 5]


@pytest.mark.parametrize(
    ("overlap", "count"), [(0, 64), (0.25, 189), (0.5, 279), ((0, 0, 0.5), 124)]
)
def test_window_count_of_the_liver_volume(overlap, count):
    corners = patches.window_corners((256, 256, 256), (128, 128, 16), overlap)
    assert len(corners) == count


@settings(max_examples=40, deadline=None)
@given(SIZES, st.floats(0, 0.9))
def test_grid_covers_every_voxel_within_the_volume(sizes, overlap):
    volume = tuple(max(pair) for pair in sizes)
    patch = tuple(min(pair) for pair in sizes)
    corners = patches.window_corners(volume, patch, overlap)
    assert (corners >= 0).all()
    assert (corners + patch <= np.array(volume)).all()
    assert min(along.min() for along in patches.coverage(corners, patch, volume)) >= 1
    assert len(np.unique(corners, axis=0)) == len(corners)


@pytest.mark.parametrize(
    ("patch", "overlap"), [((5, 2, 2), 0.0), ((2, 2, 2), 1.0), ((2, 2, 2), -0.1)]
)
def test_impossible_grids_are_refused(patch, overlap):
    with pytest.raises(InputError):
        patches.window_corners((4, 4, 4), patch, overlap)


def test_stitch_is_a_true_mean():
    values = jnp.array([1.0, 2.0, 6.0]).reshape(3, 1, 1, 1) * jnp.ones((3, 2, 1, 1))
    corners = np.array([[0, 0, 0], [1, 0, 0], [1, 0, 0]])
    stitched = patches.stitch(values, corners, (4, 1, 1)).ravel()
    np.testing.assert_allclose(stitched, [1.0, 3.0, 4.0, np.nan])


@settings(max_examples=8, deadline=None)
@given(SIZES, st.floats(0, 0.8))
def test_stitch_of_extract_is_the_volume(sizes, overlap):
    shape = tuple(max(pair) for pair in sizes)
    patch = tuple(min(pair) for pair in sizes)
    # Small whole numbers: sums and means of them are exact.
    volume = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape) % 64
    corners = patches.window_corners(shape, patch, overlap)
    cut = patches.extract(volume, corners, patch)
    np.testing.assert_allclose(patches.stitch(cut, corners, shape), volume, rtol=1e-6)


def draw(steps, foreground, counts, fraction, shape=(6, 5, 4), patch=(2, 2, 2)):
    def one(step):
        return patches.draw_corners(
            jax.random.key(0),
            step,
            jnp.asarray(foreground, jnp.int16),
            jnp.asarray(counts, jnp.int32),
            batch=4,
            patch_shape=patch,
            volume_shape=shape,
            foreground_fraction=fraction,
        )

    cases, corners = jax.jit(jax.vmap(one))(jnp.arange(steps))
    return np.asarray(cases).ravel(), np.asarray(corners).reshape(-1, 3)


def test_every_voxel_can_be_reached():
    _, corners = draw(400, np.zeros((1, 1, 3)), [1], 0.0)
    reached = np.zeros((6, 5, 4), bool)
    for x, y, z in corners:
        reached[x : x + 2, y : y + 2, z : z + 2] = True
    assert reached.all()


def test_foreground_quota_is_exact():
    foreground = np.full((2, 3, 3), (5, 4, 3))
    cases, corners = draw(250, foreground, [3, 3], 0.3, shape=(50, 50, 50))
    centred = (corners == [4, 3, 2]).all(axis=1)
    assert centred.sum() == 300
    assert centred[:100].sum() == 30
    assert set(cases) == {0, 1}


def test_padding_rows_and_empty_cases_are_never_centred_on():
    foreground = np.array([[[9, 9, 9], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
    cases, corners = draw(200, foreground, [1, 0], 1.0, shape=(20, 20, 20))
    assert (corners[cases == 0] == [8, 8, 8]).all()
    assert len(np.unique(corners[cases == 1], axis=0)) > 100


def test_draw_depends_on_key_and_step_alone():
    foreground = np.zeros((3, 2, 3))
    first, again = (draw(5, foreground, [2, 2, 2], 0.5) for _ in range(2))
    np.testing.assert_array_equal(first[1], again[1])
    assert len(np.unique(first[1], axis=0)) > 1


def test_quota_holds_at_large_steps():
    place = jnp.arange(2_000_000_000, 2_000_000_100)
    filled = patches._filled(place + 1, 300) - patches._filled(place, 300)  # per mille
    assert filled.sum() == 30


@settings(max_examples=20, deadline=None)
@given(SIZES, st.floats(0, 0.6))
def test_coverage_counts_the_windows_of_every_voxel(sizes, overlap):
    volume = tuple(max(pair) for pair in sizes)
    patch = tuple(min(pair) for pair in sizes)
    corners = patches.window_corners(volume, patch, overlap)
    count = np.zeros(volume, np.float32)
    for corner in corners:
        place = tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        count[place] += 1
    x, y, z = patches.coverage(corners, patch, volume)
    np.testing.assert_array_equal(count, x[:, None, None] * y[:, None] * z)
    assert count.min() >= 1
