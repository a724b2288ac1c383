"""3x3x3 convolutions in forms that suit the matrix units of an NVIDIA GPU.

Arrays are z-first, (b, z, x, y, c); kernels are (3, 3, 3, c_in, c_out) over (x, y, z).
Every form computes what XLA's own convolution does, up to rounding. Measured in
bfloat16 on one H100: benchmarks/results/gpu.md.
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

_XLA_3D = ("NDHWC", "DHWIO", "NDHWC")
# [window, phase, tap]: which taps of an odd and an even output read which of the two
# voxels of a window. A window of voxels i - 1 and i gives the outputs 2 i - 1 and 2 i.
_PHASES = np.array([[[1, 1, 0], [1, 0, 0]], [[0, 0, 1], [0, 1, 1]]], np.float32)
_ALIGNED = 16  # channels that a matrix unit takes at once in bfloat16


def convolve(x: Array, kernel: Array) -> Array:
    """Returns XLA's own same-padded cross-correlation, (b, z, x, y, c_out)."""
    z_first = kernel.transpose(2, 0, 1, 3, 4)
    return lax.conv_general_dilated(
        x, z_first, (1, 1, 1), "SAME", dimension_numbers=_XLA_3D
    )


def convolve_upsampled(low: Array, kernel: Array) -> Array:
    """Convolves a volume that is first upsampled, from the small volume.

    Of the three taps along an axis two read the same voxel of `low`, so an output needs
    2 x 2 x 2 products instead of 27: one convolution of the small volume by windows of
    2 x 2 x 2 gives the eight outputs of each as channels (sub-pixel convolution: Shi et
    al., 2016), and they are put in their places.

    low: (b, z, x, y, c_in). Returns (b, 2z, 2x, 2y, c_out).
    """
    taps = kernel.astype(jnp.float32)
    windows = jnp.einsum("xyzio,wcz,uax,vby->wuvicabo", taps, *[_PHASES] * 3)
    channels, out = kernel.shape[-2:]
    windows = windows.reshape(2, 2, 2, channels, 8 * out).astype(low.dtype)
    outputs = lax.conv_general_dilated(
        low, windows, (1, 1, 1), [(1, 1)] * 3, dimension_numbers=_XLA_3D
    )
    b, z, x, y, _ = outputs.shape
    apart = outputs.reshape(b, z, x, y, 2, 2, 2, out).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    # The first and the last output of every axis lie outside.
    return apart.reshape(b, 2 * z, 2 * x, 2 * y, out)[:, 1:-1, 1:-1, 1:-1]


def convolve_image(x: Array, kernel: Array) -> Array:
    """Convolves an image, (b, z, x, y, 1), whose neighbours in the plane are channels.

    One channel fills a sixteenth of a matrix unit; nine neighbours and zeros fill it,
    and three taps along z are left.
    """
    planes = jnp.pad(x[..., 0], ((0, 0), (0, 0), (1, 1), (1, 1)))
    _, _, width, height, _ = x.shape
    shifted = [planes[:, :, i : i + width, j : j + height] for i, j in np.ndindex(3, 3)]
    none = [jnp.zeros_like(x[..., 0])] * (_ALIGNED - 9)
    taps = kernel.transpose(2, 0, 1, 3, 4).reshape(3, 1, 1, 9, -1)
    taps = jnp.pad(taps, ((0, 0), (0, 0), (0, 0), (0, _ALIGNED - 9), (0, 0)))
    return lax.conv_general_dilated(
        jnp.stack([*shifted, *none], axis=-1),
        taps,
        (1, 1, 1),
        "SAME",
        dimension_numbers=_XLA_3D,
    )
