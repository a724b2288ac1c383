"""Gradient of a 3x3x3 convolution by its kernel, fast on a CPU.

Two forms, both adjoints of a Winograd transform. Over large volumes of many channels
all three axes are transformed, `of_tiles`: a tile of 4x4x4 voxels needs 216 products
instead of 1728, and no copies shifted by a voxel. Elsewhere only z is, `of_planes`: the
216 products would be of too few tiles, or too thin.

Arrays are z-first, (b, z, x, y, c); the result is (3, 3, 3, c_in, c_out) with the z tap
first.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unc_jax.segmentation.cpu_conv.winograd import (
    F4,
    Transform,
    combine,
    largest_share,
    pad_z,
    tiles,
)

# Voxels that are worked on at once, so that what is made of them stays in the cache.
_PLANES_VOXELS = 4096
_TILES_VOXELS = 8192


def of_tiles(x: Array, gradient: Array) -> Array:
    """All axes transformed by F(4, 3); 4 divides z, x and y."""
    batch, depth, width, height, channels = x.shape
    out_channels = gradient.shape[-1]
    rows = 4 * largest_share(width // 4, 16 * height, _TILES_VOXELS)
    planes = items = 1
    if rows == width:
        planes = largest_share(depth // 4, 4 * width * height, _TILES_VOXELS)
    planes *= 4
    if planes == depth:
        items = largest_share(batch, depth * width * height, _TILES_VOXELS)
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    size = (items, planes + 2, rows + 2, height + 2, channels)

    def add_slab(total: Array, start: Array) -> tuple[Array, None]:
        corner = (start[0], start[1], start[2], 0, 0)
        inputs = lax.dynamic_slice(padded, corner, size)
        outputs = lax.dynamic_slice(
            gradient, corner, (items, planes, rows, height, out_channels)
        )
        for axis in (1, 3, 5):  # z, x and y, each with the points of those before
            inputs = jnp.stack(tiles(inputs, F4.data, axis))
            outputs = jnp.stack(_spread(outputs, F4.out, axis))
        # (6 * 6 * 6, tiles, c): one small matrix product per point
        products = lax.dot_general(
            inputs.reshape(216, -1, channels),
            outputs.reshape(216, -1, out_channels),
            (((1,), (1,)), ((0,), (0,))),
        )
        return total + products, None

    starts = np.mgrid[0:batch:items, 0:depth:planes, 0:width:rows].reshape(3, -1).T
    nothing = jnp.zeros((216, channels, out_channels), x.dtype)
    by_point, _ = lax.scan(add_slab, nothing, jnp.asarray(starts))
    by_point = by_point.reshape(6, 6, 6, channels, out_channels)  # of y, x, z
    kernel = F4.kernel.astype(x.dtype)
    return jnp.einsum("bacio,cz,ax,by->zxyio", by_point, kernel, kernel, kernel)


def of_planes(x: Array, gradient: Array, transform: Transform) -> Array:
    """z alone transformed; m divides z.

    A scan over slabs of tiles keeps the unfolded planes in the cache.
    """
    data, kernel, out = transform
    points = out.shape[1]
    inputs = jnp.stack(tiles(pad_z(x), data, 1))
    spread = jnp.stack(_spread(gradient, out, 1))
    count = largest_share(
        math.prod(inputs.shape[1:3]), math.prod(x.shape[2:4]), _PLANES_VOXELS
    )
    inputs = inputs.reshape(points, -1, count, *x.shape[2:]).swapaxes(0, 1)
    spread = spread.reshape(points, -1, count, *gradient.shape[2:]).swapaxes(0, 1)

    def add_tile(total: Array, tile: tuple[Array, Array]) -> tuple[Array, None]:
        planes, gradients = tile
        products = [_plane_gradient(planes[k], gradients[k]) for k in range(points)]
        return total + jnp.stack(products), None

    shape = (points, 3, 3, x.shape[-1], gradient.shape[-1])
    by_point, _ = lax.scan(add_tile, jnp.zeros(shape, x.dtype), (inputs, spread))
    return jnp.stack([combine(kernel[:, j], lambda k: by_point[k]) for j in range(3)])


def _spread(gradient: Array, out: np.ndarray, axis: int) -> list[Array]:
    """The output transform's adjoint along an axis: one array per Winograd point."""
    step, points = out.shape
    shape = gradient.shape
    outputs = gradient.reshape(*shape[:axis], -1, step, *shape[axis + 1 :])

    def of_tile(i: int) -> Array:
        return lax.index_in_dim(outputs, i, axis + 1, keepdims=False)

    return [combine(out[:, k], of_tile) for k in range(points)]


def _plane_gradient(planes: Array, gradient: Array) -> Array:
    """2-D kernel gradient (3, 3, c_in, c_out) of some planes, as one matrix product.

    Three y shifts of the planes against three x shifts of the gradient: nine taps.
    """
    _, width, height, channels = planes.shape
    out_channels = gradient.shape[-1]
    padded = jnp.pad(planes, ((0, 0), (0, 0), (1, 1), (0, 0)))
    shifts_y = jnp.concatenate(
        [padded[:, :, b : b + height] for b in range(3)], axis=-1
    )
    padded = jnp.pad(gradient, ((0, 0), (1, 1), (0, 0), (0, 0)))
    shifts_x = jnp.concatenate(
        [padded[:, 2 - a : 2 - a + width] for a in range(3)], axis=-1
    )
    product = lax.dot_general(
        shifts_y.reshape(-1, 3 * channels),
        shifts_x.reshape(-1, 3 * out_channels),
        (((0,), (0,)), ((), ())),
    )
    return product.reshape(3, channels, 3, out_channels).transpose(2, 0, 1, 3)
