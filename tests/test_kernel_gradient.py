"""Both forms of the kernel's gradient, in slabs of every size, against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.segmentation.cpu_conv import conv3d, kernel_gradient, winograd

VOLUME, OUT = (3, 8, 12, 8, 4), 2  # b, z, x, y, c_in; c_out
PLANE = 12 * 8
# Voxels at once: less than a tile's rows, a third of the rows, a layer of tiles, a
# volume, all three.
SLABS = (1, 4 * PLANE // 3, 4 * PLANE, 8 * PLANE, 10**6)


@pytest.fixture
def arrays():
    keys = jax.random.split(jax.random.key(0))
    shapes = (VOLUME, (*VOLUME[:-1], OUT))
    return [jax.random.normal(*both) for both in zip(keys, shapes, strict=True)]


def expected(x, gradient):
    return conv3d._kernel_gradient_xla(x, gradient).transpose(2, 0, 1, 3, 4)


@pytest.mark.parametrize("voxels", SLABS)
def test_tiles_in_every_slab(voxels, arrays, monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_TILES_VOXELS", voxels)
    found = jax.jit(kernel_gradient.of_tiles)(*arrays)
    np.testing.assert_allclose(found, expected(*arrays), atol=2e-3)


@pytest.mark.parametrize("voxels", SLABS)
@pytest.mark.parametrize("transform", [winograd.F2, winograd.F4], ids=["F2", "F4"])
def test_planes_in_every_slab(transform, voxels, arrays, monkeypatch):
    monkeypatch.setattr(kernel_gradient, "_PLANES_VOXELS", voxels)
    found = kernel_gradient.of_planes(*arrays, transform)
    np.testing.assert_allclose(found, expected(*arrays), atol=1e-3)


def test_a_tile_alone_is_exact():
    """One voxel of the input and one of the gradient: one tap is 1, by hand."""
    x = jnp.zeros((1, 4, 4, 4, 1)).at[0, 1, 2, 3].set(1.0)
    gradient = jnp.zeros((1, 4, 4, 4, 1)).at[0, 0, 2, 2].set(1.0)
    found = kernel_gradient.of_tiles(x, gradient)[..., 0, 0]
    by_hand = np.zeros((3, 3, 3))
    by_hand[2, 1, 2] = 1  # output (z, x, y) reads input (z + 1, x, y + 1)
    np.testing.assert_allclose(found, by_hand, atol=1e-5)
