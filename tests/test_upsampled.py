"""The convolution of an upsampled volume, computed on the volume as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.segmentation.convolution import upsampled
from unc_jax.segmentation.convolution.conv3d import conv3d

# (b, z, x, y, c_low, c_skip, c_out): odd sizes and thin axes among them. Small work is
# left to one convolution; here nothing is small.
SHAPES = {
    "plain": (2, 4, 6, 5, 3, 2, 4),
    "one voxel": (1, 1, 1, 1, 2, 1, 3),
    "flat": (1, 1, 7, 2, 2, 3, 1),
}


@pytest.fixture(autouse=True)
def nothing_small(monkeypatch):
    monkeypatch.setattr(upsampled, "is_small", lambda *_: False)


def draw(shape, dtype=jnp.float32):
    b, z, x, y, c_low, c_skip, c_out = shape
    keys = jax.random.split(jax.random.key(0), 3)
    return (
        jax.random.normal(keys[0], (b, z, x, y, c_low), dtype),
        jax.random.normal(keys[1], (b, 2 * z, 2 * x, 2 * y, c_skip), dtype),
        jax.random.normal(keys[2], (3, 3, 3, c_low + c_skip, c_out), dtype),
    )


def test_upsampling_repeats_every_voxel():
    low = jax.random.normal(jax.random.key(0), (1, 2, 3, 4, 2))
    expected = low
    for axis in (1, 2, 3):
        expected = np.repeat(expected, 2, axis)
    np.testing.assert_array_equal(upsampled.upsample(low), expected)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_cpu_form_is_the_convolution_of_both(shape):
    low, skip, kernel = draw(shape)
    both = jnp.concatenate([upsampled.upsample(low), skip], axis=-1)
    found = jax.jit(upsampled.conv3d_joined)(low, skip, kernel)
    np.testing.assert_allclose(found, conv3d(both, kernel), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradients_are_those_of_the_convolution(shape):
    arrays = draw(shape)
    result = upsampled._joined(*arrays)
    direction = jax.random.normal(jax.random.key(1), result.shape)

    def gradients(form, *arrays):
        return jax.vjp(form, *arrays)[1](direction)

    compiled = jax.jit(gradients, static_argnums=0)
    found = compiled(upsampled.conv3d_joined, *arrays)
    expected = compiled(upsampled._joined, *arrays)
    for one, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, wanted, atol=2e-4)


def test_small_work_is_one_convolution(monkeypatch):
    monkeypatch.undo()
    arrays = draw(SHAPES["plain"])
    np.testing.assert_array_equal(
        upsampled._joined_cpu(*arrays), upsampled._joined(*arrays)
    )


def test_a_single_voxel_by_hand():
    """One voxel of 1: every output adds the taps that read it."""
    kernel = jnp.arange(27.0).reshape(3, 3, 3, 1, 1)
    low = jnp.ones((1, 1, 1, 1, 1))
    found = upsampled.convolve_upsampled(low, kernel)[0, ..., 0]
    # Output (z, x, y) of 2x2x2 sees the volume in the taps 1 - i .. 2 - i of each axis.
    taps = np.arange(27.0).reshape(3, 3, 3)
    for z, x, y in np.ndindex(2, 2, 2):
        seen = taps[1 - x : 3 - x, 1 - y : 3 - y, 1 - z : 3 - z]
        assert found[z, x, y] == seen.sum()


def test_bfloat16_stays_bfloat16():
    low, skip, kernel = draw(SHAPES["plain"], jnp.bfloat16)
    found = upsampled.conv3d_joined(low, skip, kernel)
    both = jnp.concatenate([upsampled.upsample(low), skip], axis=-1)
    exact = conv3d(both.astype(jnp.float32), kernel.astype(jnp.float32))
    assert found.dtype == jnp.bfloat16
    assert jnp.abs(found - exact).max() < 0.02 * jnp.abs(exact).max()


def test_vmap_equals_loop():
    low, skip, kernel = draw(SHAPES["plain"])
    kernels = jnp.stack([kernel, 2 * kernel])
    mapped = jax.vmap(upsampled.conv3d_joined, in_axes=(None, None, 0))(
        low, skip, kernels
    )
    looped = jnp.stack([upsampled._joined(low, skip, k) for k in kernels])
    np.testing.assert_allclose(mapped, looped, atol=1e-4)
