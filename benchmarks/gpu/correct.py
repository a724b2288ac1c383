"""Answers of single layers and of the network, and how far they are from a CPU's.

The CPU's forms of the convolution are held against float64 by the tests; here what a
GPU computes is held against them, at full size: libraries have been wrong there alone.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from benchmarks.peers.ours import variables
from unc_jax.segmentation import devices
from unc_jax.segmentation.convolution.upsampled import convolve
from unc_jax.segmentation.sliding import build_point_prediction
from unc_jax.segmentation.unet import UNet3D


def layer(
    shape, channels, low: int, batch: int, gradients: bool, dtype: str,
    products: str, path: str, reference: bool,
) -> Callable[[], list[float] | None]:  # fmt: skip
    """Returns the relative error of a convolution of the last item, or those of its
    gradients: the kernel's, then each input's.

    `low` of the input channels are of half the size. Inputs are numbers of bfloat16
    whatever the dtype. products: a precision of JAX; on a GPU "default" allows TF32 for
    float32, "highest" does not. With `reference` the answer goes to `path`, otherwise
    it is compared with what is there.
    """
    x, y, z = shape
    sizes = [(z, x, y, channels[0] - low)]
    if low:
        sizes.insert(0, (z // 2, x // 2, y // 2, low))
    # Of a batch too large for the CPU the reference computes the last item alone.
    items = jnp.arange(batch - 1 if reference and not gradients else 0, batch)
    inputs = [_draw(i, items, size, dtype) for i, size in enumerate(sizes)]
    arrays = [_draw(2, items[:1] * 0, (3, 3, 3, *channels), dtype)[0], *inputs]
    if gradients:
        # Not within the program: a GPU's compiler leaves out the rounding to bfloat16.
        arrays.insert(0, _draw(3, items, (z, x, y, channels[1]), dtype))

    def backward(outgoing, kernel, *inputs):
        return jax.vjp(lambda k, *i: convolve(i, k), kernel, *inputs)[1](outgoing)

    def forward(kernel, *inputs):
        return (convolve(inputs, kernel)[-1],)

    function = backward if gradients else forward
    compiled = jax.jit(function, compiler_options=devices.compiler_options())

    def run() -> list[float] | None:
        with jax.default_matmul_precision(products):
            found = compiled(*arrays)
        return _kept_or_compared(found, path, reference)

    return run


def network(
    features: int, depth: int, patch, size, dtype: str, products: str, path: str,
    reference: bool,
) -> Callable[[], list[float] | None]:  # fmt: skip
    """Returns the relative error of a plain pass over a volume, drawn weights."""
    predict = build_point_prediction(
        UNet3D(features, depth, dtype=jnp.dtype(dtype)),
        patch_shape=patch,
        overlap=0.25,
        window_batch=2,
    )
    volume = np.random.default_rng(0).standard_normal(size, np.float32)

    def run() -> list[float] | None:
        with jax.default_matmul_precision(products):
            found = predict(variables(features, depth), volume)
        return _kept_or_compared((found,), path, reference)

    return run


def _draw(seed: int, items: Array, shape: tuple[int, ...], dtype: str) -> Array:
    """Numbers of -1 to 1, the same for an item on every platform."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), items)
    drawn = jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-1.0))(keys)
    return drawn.astype(jnp.bfloat16).astype(dtype)


def _kept_or_compared(found, path: str, reference: bool) -> list[float] | None:
    """Saves arrays, or returns the relative error of each."""
    arrays = [np.asarray(array.astype(jnp.float32)) for array in found]
    if reference:
        np.savez(path, *arrays)
        return None
    with np.load(path) as file:
        expected = [file[name] for name in file.files]
    pairs = zip(arrays, expected, strict=True)
    errors = [float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in pairs]
    return [error if np.isfinite(error) else np.inf for error in errors]
