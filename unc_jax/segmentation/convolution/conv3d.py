"""3x3x3 convolution with a form of its own for CPUs.

XLA lowers 3-D convolutions on a CPU to a generic routine at a tenth to a quarter of the
speed of the machine, while its 2-D convolutions are near the limit. The network's
volumes are thin along z, so the CPU form transforms z away: a one-dimensional Winograd
transform (Winograd, 1980; Lavin and Gray, 2016) in front of 2-D convolutions. On other
platforms XLA's own convolution is used, but of an image on NVIDIA GPUs that of
`matrix_units`. All compute the same function up to rounding.

Arrays are z-first, (b, z, x, y, c); kernels are (3, 3, 3, c_in, c_out) over (x, y, z).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unc_jax.segmentation.convolution import matrix_units, winograd
from unc_jax.segmentation.convolution.winograd import conv2d, pad_z

# Products of input values and output channels below which compiling takes longer than
# the faster form saves.
_SMALL_WORK = 2**21


@jax.custom_vjp
def conv3d(x: Array, kernel: Array) -> Array:
    """Returns the same-padded 3x3x3 cross-correlation, stride 1.

    Args:
      x: (b, z, x, y, c_in), thin axis first.
      kernel: (3, 3, 3, c_in, c_out), spatial axes in (x, y, z) order.

    Returns:
      (b, z, x, y, c_out) in the dtype of `x`. The CPU form differs from a float64
      result by at most about 1e-4 of the largest output (tests/test_conv3d.py).

    Only reverse-mode differentiation is defined.
    """
    return lax.platform_dependent(
        x, kernel, cpu=_forward_cpu, cuda=_forward_cuda, default=matrix_units.convolve
    )


def _conv3d_fwd(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return conv3d(x, kernel), (x, kernel)


def _conv3d_bwd(residuals: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    # The gradient by the input is the same convolution with the kernel turned round.
    turned = jnp.flip(kernel, (0, 1, 2)).swapaxes(3, 4)
    by_kernel = lax.platform_dependent(
        x,
        gradient,
        cpu=_kernel_gradient_cpu,
        cuda=_kernel_gradient(_forward_cuda),
        default=_kernel_gradient(matrix_units.convolve),
    )
    return conv3d(gradient, turned), by_kernel.astype(kernel.dtype)


conv3d.defvjp(_conv3d_fwd, _conv3d_bwd)


def _forward_cuda(x: Array, kernel: Array) -> Array:
    form = matrix_units.convolve_image if x.shape[-1] == 1 else matrix_units.convolve
    return form(x, kernel)


def _kernel_gradient(form: Callable[[Array, Array], Array]) -> Callable:
    """Returns a function (x, gradient) -> the kernel's gradient of a form."""

    def kernel_gradient(x: Array, gradient: Array) -> Array:
        shape = (3, 3, 3, x.shape[-1], gradient.shape[-1])
        _, pullback = jax.vjp(lambda kernel: form(x, kernel), jnp.zeros(shape, x.dtype))
        return pullback(gradient)[0]

    return kernel_gradient


def _forward_cpu(x: Array, kernel: Array) -> Array:
    taps = kernel.transpose(2, 0, 1, 3, 4).astype(x.dtype)  # one 2-D kernel per z tap
    depth = x.shape[1]
    small = is_small(x, kernel.shape[-1])
    if x.shape[-1] <= 2 and not small:
        return _shifted_products(x, taps)
    if depth % 2 or small:
        return _folded(x, taps)
    if depth % 4:
        return winograd.convolve(x, taps, winograd.F2)
    return winograd.convolve(x, taps, winograd.F4)


def _kernel_gradient_cpu(x: Array, gradient: Array) -> Array:
    depth = x.shape[1]
    if x.shape[-1] <= 2 or depth % 2 or is_small(x, gradient.shape[-1]):
        taps = _kernel_gradient_folded(x, gradient)
    elif depth % 4:
        taps = winograd.kernel_gradient(x, gradient, winograd.F2)
    else:
        taps = winograd.kernel_gradient(x, gradient, winograd.F4)
    return taps.transpose(1, 2, 0, 3, 4)


def is_small(x: Array, out_channels: int) -> bool:
    """Tells whether the work is too little for the form to matter; then the folded one
    is taken, which compiles fastest."""
    return x.size * out_channels <= _SMALL_WORK


def _folded(x: Array, taps: Array) -> Array:
    """Convolves in 2-D with three z neighbours side by side in the channels."""
    padded, depth = pad_z(x), x.shape[1]
    neighbours = jnp.concatenate([padded[:, j : j + depth] for j in range(3)], axis=-1)
    kernel = taps.transpose(1, 2, 0, 3, 4).reshape(3, 3, -1, taps.shape[-1])
    return conv2d(neighbours, kernel)


def _kernel_gradient_folded(x: Array, gradient: Array) -> Array:
    shape = (3, 3, 3, x.shape[-1], gradient.shape[-1])
    _, pullback = jax.vjp(lambda taps: _folded(x, taps), jnp.zeros(shape, x.dtype))
    return pullback(gradient)[0]


def _shifted_products(x: Array, taps: Array) -> Array:
    """Sums 27 shifted copies times a row of the kernel: fastest for one channel."""
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    _, depth, width, height, channels = x.shape
    total = jnp.zeros((*x.shape[:-1], taps.shape[-1]), x.dtype)
    for k, i, j in np.ndindex(3, 3, 3):
        shifted = padded[:, k : k + depth, i : i + width, j : j + height]
        for c in range(channels):
            weights = taps[k, i, j, c].reshape(1, 1, 1, 1, -1)
            total = total + shifted[..., c : c + 1] * weights
    return total
