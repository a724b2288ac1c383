"""3x3x3 convolution as a one-dimensional Winograd transform and 2-D convolutions.

Winograd (1980); Lavin and Gray (2016). The transform runs along z, the thin axis of the
volumes; arrays are z-first, (b, z, x, y, c), and `taps` are (3, 3, 3, c_in, c_out) with
the z tap first.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Voxels of the planes that are worked on at once, forward and for the gradient by the
# kernel: what is made of them then stays in the cache.
_VOXELS = 65_536
_GRADIENT_VOXELS = 4096
_XLA_2D = ("NHWC", "HWIO", "NHWC")


class Transform(NamedTuple):
    """Matrices of F(m, 3): m outputs of m + 2 inputs by m + 2 products, not 3 m.

    output = out @ ((kernel @ taps) * (data @ input)).
    """

    data: np.ndarray
    kernel: np.ndarray
    out: np.ndarray


# Points 0, 1, -1, 2, -2.
F4 = Transform(
    data=np.array(
        [
            [4, 0, -5, 0, 1, 0],
            [0, -4, -4, 1, 1, 0],
            [0, 4, -4, -1, 1, 0],
            [0, -2, -1, 2, 1, 0],
            [0, 2, -1, -2, 1, 0],
            [0, 4, 0, -5, 0, 1],
        ],
        np.float64,
    ),
    kernel=np.array(
        [
            [1 / 4, 0, 0],
            [-1 / 6, -1 / 6, -1 / 6],
            [-1 / 6, 1 / 6, -1 / 6],
            [1 / 24, 1 / 12, 1 / 6],
            [1 / 24, -1 / 12, 1 / 6],
            [0, 0, 1],
        ]
    ),
    out=np.array(
        [
            [1, 1, 1, 1, 1, 0],
            [0, 1, -1, 2, -2, 0],
            [0, 1, 1, 4, 4, 0],
            [0, 1, -1, 8, -8, 1],
        ],
        np.float64,
    ),
)
# Points 0, 1, -1.
F2 = Transform(
    data=np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float),
    kernel=np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]),
    out=np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float),
)


def conv2d(planes: Array, kernel: Array) -> Array:
    """Convolves (..., x, y, c_in) by (3, 3, c_in, c_out), same padding, in 2-D.

    The planes lie side by side along y, a column of zeros between them, as one image:
    XLA on a CPU gives a convolution a second thread only if the image's rows are long.
    """
    flat = planes.reshape(-1, *planes.shape[-3:])
    count, width, height, channels = flat.shape
    image = jnp.pad(flat, ((0, 0), (0, 0), (0, 1), (0, 0))).swapaxes(0, 1)
    out = lax.conv_general_dilated(
        image.reshape(1, width, count * (height + 1), channels),
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=_XLA_2D,
    )
    apart = out.reshape(width, count, height + 1, -1)[:, :, :height].swapaxes(0, 1)
    return apart.reshape(*planes.shape[:-1], kernel.shape[-1])


def pad_z(x: Array) -> Array:
    """Adds a plane of zeros before and after."""
    return jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))


def combine(coefficients: np.ndarray, parts: Callable[[int], Array]) -> Array:
    """Sums coefficient times part over the non-zero coefficients."""
    terms = [float(c) * parts(j) for j, c in enumerate(coefficients) if c]
    return sum(terms[1:], start=terms[0])


def convolve(x: Array, taps: Array, transform: Transform) -> Array:
    """Returns the same-padded cross-correlation, (b, z, x, y, c_out); m divides z.

    A scan over slabs, which are transformed inside it: the transformed volume, larger
    than `x`, and the products never exist as a whole.
    """
    data, kernel, out = transform
    step, points = out.shape
    kernels = [combine(kernel[k], lambda j: taps[j]) for k in range(points)]
    batch, depth, width, height, channels = x.shape
    layers = depth // step
    count = largest_share(layers, width * height, _VOXELS)
    items = 1
    if count == layers:
        items = largest_share(batch, layers * width * height, _VOXELS)
    padded = pad_z(x)
    size = (items, count * step + 2, width, height, channels)

    def put_slab(total: Array, start: Array) -> tuple[Array, None]:
        place = (start[0], start[1], 0, 0, 0)
        parts = tiles(lax.dynamic_slice(padded, place, size), data)
        products = [conv2d(parts[k], kernels[k]) for k in range(points)]
        planes = [combine(out[i], lambda k: products[k]) for i in range(step)]
        slab = jnp.stack(planes, axis=2).reshape(items, -1, *products[0].shape[2:])
        return lax.dynamic_update_slice(total, slab, place), None

    starts = np.mgrid[0:batch:items, 0 : depth : count * step].reshape(2, -1).T
    # Written over everywhere. Zeros would do, but XLA keeps those of all convolutions
    # from the start of a pass; these wait for x.
    total = jnp.full((*x.shape[:-1], taps.shape[-1]), x[0, 0, 0, 0, 0])
    return lax.scan(put_slab, total, jnp.asarray(starts))[0]


def kernel_gradient(x: Array, gradient: Array, transform: Transform) -> Array:
    """Returns the gradient of `convolve` by `taps`; m divides z.

    A scan over slabs of tiles keeps the unfolded planes in the cache.
    """
    data, kernel, out = transform
    points = out.shape[1]
    inputs = jnp.stack(tiles(pad_z(x), data))
    spread = jnp.stack(_spread(gradient, out))
    count = largest_share(
        math.prod(inputs.shape[1:3]), math.prod(x.shape[2:4]), _GRADIENT_VOXELS
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


def _spread(gradient: Array, out: np.ndarray) -> list[Array]:
    """Applies the adjoint of the output transform: one array per Winograd point."""
    step, points = out.shape
    shape = gradient.shape
    outputs = gradient.reshape(shape[0], -1, step, *shape[2:])
    return [combine(out[:, k], lambda i: outputs[:, :, i]) for k in range(points)]


def _plane_gradient(planes: Array, gradient: Array) -> Array:
    """Returns the 2-D kernel gradient (3, 3, c_in, c_out) of some planes.

    One matrix product: three y shifts of the planes against three x shifts of the
    gradient are the nine taps.
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


def tiles(padded: Array, data: np.ndarray) -> list[Array]:
    """Returns the transformed inputs, one array per Winograd point; z counts tiles."""
    step = len(data) - 2
    count = (padded.shape[1] - 2) // step

    def shifted(j: int) -> Array:
        stop = j + (count - 1) * step + 1
        return lax.slice_in_dim(padded, j, stop, step, axis=1)

    return [combine(row, shifted) for row in data]


def largest_share(count: int, voxels: int, together: int) -> int:
    """Returns the largest divisor of `count` with at most `together` voxels a part.

    Products over single planes of a few hundred voxels are mostly overhead.
    """
    most = max(1, together // voxels)
    return next(n for n in range(min(most, count), 0, -1) if count % n == 0)
