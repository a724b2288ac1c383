"""Convolution of an upsampled volume joined with a skip: the first of every level up.

Nearest upsampling repeats voxels, so that of the three taps along an axis two read the
same one. Computed on the small volume, the convolution of its upsampled form needs 6
products per output instead of 27, and the upsampled volume need not exist: in the plane
the four outputs of a voxel are phases of windows of 2 x 2, as in sub-pixel convolution
(Shi et al., 2016); along z three products give two outputs,

    even = k0 (before - here) + (k0 + k1 + k2) here
    odd  = (k0 + k1 + k2) here + k2 (after - here).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unc_jax.segmentation.convolution import matrix_units
from unc_jax.segmentation.convolution.conv3d import conv3d, is_small

# Kernels of the three products along z, from the taps.
_SUMS = np.array([[1, 0, 0], [1, 1, 1], [0, 0, 1]], np.float32)
# [window, phase, tap]: which taps of an even and an odd output read which voxel.
_PHASES = np.array([[[1, 0, 0], [1, 1, 0]], [[0, 1, 1], [0, 0, 1]]], np.float32)


def upsample(x: Array) -> Array:
    """Repeats every voxel twice along each axis, (b, z, x, y, c)."""
    b, z, width, height, c = x.shape
    spread = x.reshape(b, z, 1, width, 1, height, 1, c)
    spread = jnp.broadcast_to(spread, (b, z, 2, width, 2, height, 2, c))
    return spread.reshape(b, 2 * z, 2 * width, 2 * height, c)


def convolve(inputs: tuple[Array, ...], kernel: Array) -> Array:
    """Convolves a volume, or a volume of half the size, upsampled, and a skip."""
    if len(inputs) == 1:
        return conv3d(*inputs, kernel)
    return conv3d_joined(*inputs, kernel)


@jax.custom_vjp
def conv3d_joined(low: Array, skip: Array, kernel: Array) -> Array:
    """Convolves `low`, upsampled, and `skip`, their channels side by side.

    Args:
      low: (b, z, x, y, c_low).
      skip: (b, 2z, 2x, 2y, c_skip).
      kernel: (3, 3, 3, c_low + c_skip, c_out), spatial axes in (x, y, z) order.

    Returns:
      (b, 2z, 2x, 2y, c_out), the same on every platform up to rounding; on a CPU and
      on NVIDIA GPUs the part of `low` is computed on the small volume. Only
      reverse-mode differentiation is defined.
    """
    return lax.platform_dependent(
        low, skip, kernel, cpu=_joined_cpu, cuda=_joined_cuda, default=_joined
    )


def _conv3d_joined_fwd(low: Array, skip: Array, kernel: Array):
    return conv3d_joined(low, skip, kernel), (low, skip, kernel)


def _conv3d_joined_bwd(residuals: tuple[Array, ...], gradient: Array):
    def pullback_of(form):
        return lambda *arrays: jax.vjp(form, *arrays[:-1])[1](arrays[-1])

    return lax.platform_dependent(
        *residuals,
        gradient,
        cpu=pullback_of(_apart),
        cuda=pullback_of(_joined_cuda),
        default=pullback_of(_joined),
    )


conv3d_joined.defvjp(_conv3d_joined_fwd, _conv3d_joined_bwd)


def _joined(low: Array, skip: Array, kernel: Array) -> Array:
    return conv3d(jnp.concatenate([upsample(low), skip], axis=-1), kernel)


def _joined_cuda(low: Array, skip: Array, kernel: Array) -> Array:
    of_low, of_skip = _halves(low, kernel)
    return matrix_units.convolve_upsampled(low, of_low) + conv3d(skip, of_skip)


def _joined_cpu(low: Array, skip: Array, kernel: Array) -> Array:
    """Computes `_apart` in place: less memory, but its gradient would keep all."""
    if is_small(skip, kernel.shape[-1]):
        return _joined(low, skip, kernel)
    of_low, of_skip = _halves(low, kernel)
    two_planes, starts = _planes_of(low, of_low)

    def add(total: Array, start: Array) -> tuple[Array, None]:
        planes = two_planes(start)[None]
        place = (start[0], 2 * start[1], 0, 0, 0)
        present = lax.dynamic_slice(total, place, planes.shape)
        return lax.dynamic_update_slice(total, present + planes, place), None

    return lax.scan(add, conv3d(skip, of_skip), starts)[0]


def _apart(low: Array, skip: Array, kernel: Array) -> Array:
    if is_small(skip, kernel.shape[-1]):
        return _joined(low, skip, kernel)
    of_low, of_skip = _halves(low, kernel)
    return convolve_upsampled(low, of_low) + conv3d(skip, of_skip)


def _halves(low: Array, kernel: Array) -> tuple[Array, Array]:
    channels = low.shape[-1]
    return kernel[..., :channels, :], kernel[..., channels:, :]


def convolve_upsampled(low: Array, kernel: Array) -> Array:
    """Returns conv3d(upsample(low), kernel), one plane of `low` after the other."""
    batch, depth, width, height, _ = low.shape
    planes = lax.map(*_planes_of(low, kernel))
    return planes.reshape(batch, 2 * depth, 2 * width, 2 * height, -1)


def _planes_of(low: Array, kernel: Array) -> tuple[Callable[[Array], Array], Array]:
    """Returns a function from (item, z), a plane of `low`, to the two planes
    (2, 2x, 2y, c_out) that it becomes, and all (item, z)."""
    batch, depth, width, height, channels = low.shape
    products = jnp.einsum(
        "xyzio,pz,uax,vby->puviabo", kernel, _SUMS, _PHASES, _PHASES
    ).reshape(3, 4 * channels, -1)
    products = products.astype(low.dtype)  # summed in float32
    padded = jnp.pad(low, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    size = (1, 3, width + 2, height + 2, channels)

    @jax.checkpoint  # the windows are cheaper to gather again than to keep
    def two_planes(start: Array) -> Array:
        """Returns the planes (2, 2x, 2y, c_out) of a plane (item, z) of `low`."""
        planes = lax.dynamic_slice(padded, (start[0], start[1], 0, 0, 0), size)
        before, here, after = planes[0]
        parts = (before - here, here, after - here)
        first, both, last = (
            _windows(plane) @ product
            for plane, product in zip(parts, products, strict=True)
        )
        return jnp.stack([_interleave(first + both), _interleave(both + last)])

    return two_planes, jnp.asarray(np.mgrid[0:batch, 0:depth].reshape(2, -1).T)


def _windows(plane: Array) -> Array:
    """Gathers windows of 2 x 2, (x - 1, y - 1, 4 c), of a plane (x, y, c)."""
    columns = jnp.concatenate([plane[:, :-1], plane[:, 1:]], axis=-1)
    return jnp.concatenate([columns[:-1], columns[1:]], axis=-1)


def _interleave(phases: Array) -> Array:
    """Joins the four phases of every window, (x + 1, y + 1, 4 c), to (2x, 2y, c).

    An even output is the first phase of the window that ends at its voxel, an odd one
    the second phase of the window that begins there.
    """
    width, height, channels = phases.shape
    phases = phases.reshape(width, height, 2, 2, channels // 4)
    rows = jnp.stack([phases[:-1, :, 0], phases[1:, :, 1]], axis=1)
    both = jnp.stack([rows[:, :, :-1, 0], rows[:, :, 1:, 1]], axis=3)
    return both.reshape(2 * (width - 1), 2 * (height - 1), -1)
