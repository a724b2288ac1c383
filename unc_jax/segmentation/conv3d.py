"""3x3x3 convolution that is fast on a CPU too.

XLA lowers 3-D convolutions on a CPU to a generic routine at a tenth to a quarter of the
speed of the machine, while its 2-D convolutions are near the limit. The network's
volumes are thin along z, so the CPU form transforms z away: a one-dimensional Winograd
transform (Winograd, 1980; Lavin and Gray, 2016) in front of 2-D convolutions. On other
platforms XLA's own convolution is used. Both compute the same function up to rounding.

Arrays are z-first, (b, z, x, y, c); kernels are (3, 3, 3, c_in, c_out) over (x, y, z).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_SMALL_VOXELS = 4096
_SLAB_VOXELS = 4096
_XLA_3D = ("NDHWC", "DHWIO", "NDHWC")
_XLA_2D = ("NHWC", "HWIO", "NHWC")

# Winograd F(m, 3): m outputs from m + 2 inputs with m + 2 products instead of 3 m.
# output = out @ ((kernel_transform @ kernel) * (data @ input)). Points 0, 1, -1, 2, -2.
_F4_DATA = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    np.float64,
)
_F4_KERNEL = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
_F4_OUT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ],
    np.float64,
)
_F2_DATA = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]], float)
_F2_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_F2_OUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]], float)


@jax.custom_vjp
def conv3d(x: Array, kernel: Array) -> Array:
    """Same-padded 3x3x3 cross-correlation, stride 1, chosen per platform.

    Args:
      x: (b, z, x, y, c_in), thin axis first.
      kernel: (3, 3, 3, c_in, c_out), spatial axes in (x, y, z) order.

    Returns:
      (b, z, x, y, c_out) in the dtype of `x`. The CPU form differs from a float64
      result by at most about 1e-4 of the largest output (tests/test_conv3d.py).

    Only reverse-mode differentiation is defined.
    """
    return lax.platform_dependent(x, kernel, cpu=_forward_cpu, default=_forward_xla)


def _conv3d_fwd(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3d(x, kernel), (x, kernel)


def _conv3d_bwd(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    # The gradient by the input is the same convolution with the kernel turned round.
    turned = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    by_kernel = lax.platform_dependent(
        x, gradient, cpu=_kernel_gradient_cpu, default=_kernel_gradient_xla
    )
    return conv3d(gradient, turned), by_kernel.astype(kernel.dtype)


conv3d.defvjp(_conv3d_fwd, _conv3d_bwd)


def _forward_xla(x: Array, kernel: Array) -> Array:
    z_first = kernel.transpose(2, 0, 1, 3, 4)
    return lax.conv_general_dilated(
        x, z_first, (1, 1, 1), "SAME", dimension_numbers=_XLA_3D
    )


def _kernel_gradient_xla(x: Array, gradient: Array) -> Array:
    shape = (3, 3, 3, x.shape[-1], gradient.shape[-1])
    _, pullback = jax.vjp(
        lambda kernel: _forward_xla(x, kernel), jnp.zeros(shape, x.dtype)
    )
    return pullback(gradient)[0]


def _forward_cpu(x: Array, kernel: Array) -> Array:
    taps = kernel.transpose(2, 0, 1, 3, 4).astype(x.dtype)  # one 2-D kernel per z tap
    depth = x.shape[1]
    if x.shape[-1] <= 2 and not _is_small(x):
        return _shifted_products(x, taps)
    if depth % 2 or _is_small(x):
        return _folded(x, taps)
    if depth % 4:
        return _winograd(x, taps, _F2_DATA, _F2_KERNEL, _F2_OUT)
    return _winograd(x, taps, _F4_DATA, _F4_KERNEL, _F4_OUT)


def _kernel_gradient_cpu(x: Array, gradient: Array) -> Array:
    depth = x.shape[1]
    if x.shape[-1] <= 2 or depth % 2 or _is_small(x):
        taps = _kernel_gradient_folded(x, gradient)
    elif depth % 4:
        taps = _winograd_gradient(x, gradient, _F2_DATA, _F2_KERNEL, _F2_OUT)
    else:
        taps = _winograd_gradient(x, gradient, _F4_DATA, _F4_KERNEL, _F4_OUT)
    return taps.transpose(1, 2, 0, 3, 4)


def _is_small(x: Array) -> bool:
    """Too few voxels for the form to matter: one convolution compiles fastest."""
    return x.size // x.shape[-1] <= _SMALL_VOXELS


def _conv2d(planes: Array, kernel: Array) -> Array:
    """(..., x, y, c_in) by (3, 3, c_in, c_out), same padding; leading axes as batch."""
    flat = planes.reshape(-1, *planes.shape[-3:])
    out = lax.conv_general_dilated(
        flat, kernel, (1, 1), "SAME", dimension_numbers=_XLA_2D
    )
    return out.reshape(*planes.shape[:-1], kernel.shape[-1])


def _pad_z(x: Array) -> Array:
    return jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))


def _combine(coefficients: np.ndarray, parts: Callable[[int], Array]) -> Array:
    """Sum of coefficient times part over the non-zero coefficients."""
    terms = [float(c) * parts(j) for j, c in enumerate(coefficients) if c]
    return sum(terms[1:], start=terms[0])


def _winograd(
    x: Array, taps: Array, data: np.ndarray, kernel: np.ndarray, out: np.ndarray
) -> Array:
    step = out.shape[0]
    inputs = _tiles(_pad_z(x), data)
    products = [
        _conv2d(tile, _combine(kernel[k], lambda j: taps[j]))
        for k, tile in enumerate(inputs)
    ]
    planes = [_combine(out[i], lambda k: products[k]) for i in range(step)]
    stacked = jnp.stack(planes, axis=2)  # (b, z / step, step, x, y, c)
    return stacked.reshape(*x.shape[:-1], taps.shape[-1])


def _tiles(padded: Array, data: np.ndarray) -> list[Array]:
    """Transformed inputs, one (b, z / step, x, y, c) array per Winograd point."""
    points = data.shape[0]
    step = points - 2
    count = (padded.shape[1] - 2) // step

    def plane(j: int) -> Array:
        return lax.slice_in_dim(padded, j, j + (count - 1) * step + 1, step, axis=1)

    return [_combine(row, plane) for row in data]


def _winograd_gradient(
    x: Array, gradient: Array, data: np.ndarray, kernel: np.ndarray, out: np.ndarray
) -> Array:
    """Gradient by the three z taps: the adjoint of `_winograd`, tile by tile.

    A scan over slabs of tiles keeps the unfolded planes in the cache.
    """
    step, points = out.shape
    inputs = jnp.stack(_tiles(_pad_z(x), data))
    outputs = gradient.reshape(
        gradient.shape[0], -1, step, *gradient.shape[2:]
    )  # (b, tiles, step, x, y, c)
    spread = jnp.stack(
        [_combine(out[:, k], lambda i: outputs[:, :, i]) for k in range(points)]
    )
    count = _planes_at_once(inputs.shape[1] * inputs.shape[2], x.shape[2] * x.shape[3])
    inputs = inputs.reshape(points, -1, count, *x.shape[2:]).swapaxes(0, 1)
    spread = spread.reshape(points, -1, count, *gradient.shape[2:]).swapaxes(0, 1)

    def add_tile(total: Array, tile: tuple[Array, Array]) -> tuple[Array, None]:
        planes, gradients = tile
        products = [_plane_gradient(planes[k], gradients[k]) for k in range(points)]
        return total + jnp.stack(products), None

    shape = (points, 3, 3, x.shape[-1], gradient.shape[-1])
    by_point, _ = lax.scan(add_tile, jnp.zeros(shape, x.dtype), (inputs, spread))
    return jnp.stack([_combine(kernel[:, j], lambda k: by_point[k]) for j in range(3)])


def _planes_at_once(count: int, voxels: int) -> int:
    """The largest divisor of `count` whose planes hold at most _SLAB_VOXELS together.

    Products over single planes of a few hundred voxels are mostly overhead.
    """
    most = max(1, _SLAB_VOXELS // voxels)
    return next(n for n in range(min(most, count), 0, -1) if count % n == 0)


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


def _folded(x: Array, taps: Array) -> Array:
    """Three z neighbours side by side in the channels of one 2-D convolution."""
    padded, depth = _pad_z(x), x.shape[1]
    neighbours = jnp.concatenate([padded[:, j : j + depth] for j in range(3)], axis=-1)
    kernel = taps.transpose(1, 2, 0, 3, 4).reshape(3, 3, -1, taps.shape[-1])
    return _conv2d(neighbours, kernel)


def _kernel_gradient_folded(x: Array, gradient: Array) -> Array:
    shape = (3, 3, 3, x.shape[-1], gradient.shape[-1])
    _, pullback = jax.vjp(lambda taps: _folded(x, taps), jnp.zeros(shape, x.dtype))
    return pullback(gradient)[0]


def _shifted_products(x: Array, taps: Array) -> Array:
    """Sum of 27 shifted copies times a row of the kernel: best for one channel."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    _, depth, width, height, channels = x.shape
    total = jnp.zeros((*x.shape[:-1], taps.shape[-1]), x.dtype)
    for k, i, j in np.ndindex(3, 3, 3):
        shifted = padded[:, k : k + depth, i : i + width, j : j + height]
        for c in range(channels):
            weights = taps[k, i, j, c].reshape(1, 1, 1, 1, -1)
            total = total + shifted[..., c : c + 1] * weights
    return total
