"""The tasks of the benchmark, done by this package."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.peers import ours_training
from benchmarks.peers.contender import HOST, Device, serve
from unc_jax.compilation import returning_memory
from unc_jax.segmentation import devices
from unc_jax.segmentation.convolution.conv3d import conv3d
from unc_jax.segmentation.convolution.upsampled import conv3d_joined, upsample
from unc_jax.segmentation.sliding import build_point_prediction
from unc_jax.segmentation.train import empty_state, variables_of
from unc_jax.segmentation.unet import UNet3D
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES
from unc_jax.uncertainty.packed_masks import pairwise_dice_packed
from unc_jax.uncertainty.sampling import build_monte_carlo, default_chunk

PATCH = (128, 128, 16)
_XLA_3D = ("NDHWC", "DHWIO", "NDHWC")


def machine() -> Callable[[], dict[str, Any]]:
    """Versions, and the best matrix product of five in GFLOP/s: float32 on a CPU,
    bfloat16 elsewhere."""
    on_cpu = jax.default_backend() == "cpu"
    size, dtype = (3072, jnp.float32) if on_cpu else (8192, jnp.bfloat16)
    a = jax.random.normal(jax.random.key(0), (size, size), dtype)
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        product(a).block_until_ready()
        best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e9)
    facts = {"jax": jax.__version__, "device": jax.devices()[0].device_kind}
    return lambda: {**facts, "peak_gflops": best}


def conv(
    shape, channels, low: int, form: str, gradients: bool, batch: int = 1,
    dtype: str = "float32",
) -> Callable[[], None]:  # fmt: skip
    """Builds a 3x3x3 convolution of (batch, *shape, c_in), by our form or XLA's own.

    `low` of the channels come from a volume of half the size, to be upsampled.
    """
    x, y, z = shape
    rng = np.random.default_rng(0)

    def draw(*sizes: int) -> Array:
        return jnp.asarray(rng.standard_normal(sizes, np.float32), dtype)

    arrays = [draw(batch, z, x, y, channels[0] - low), draw(3, 3, 3, *channels)]
    if low:
        arrays.insert(0, draw(batch, z // 2, x // 2, y // 2, low))

    def xla(*arrays):
        *halves, image, kernel = arrays
        both = [upsample(half) for half in halves] + [image]
        return lax.conv_general_dilated(
            jnp.concatenate(both, axis=-1),
            kernel,
            (1,) * 3,
            "SAME",
            dimension_numbers=_XLA_3D,
        )

    function = xla if form == "xla" else conv3d_joined if low else conv3d
    if gradients:
        numbers = tuple(range(len(arrays)))
        function = jax.grad(lambda *a, f=function: jnp.sum(f(*a) ** 2), numbers)
    compiled = jax.jit(function, compiler_options=devices.compiler_options())

    def run() -> None:
        jax.block_until_ready(compiled(*arrays))

    return run


def weights(features: int, path: str, depth: int = 4) -> Callable[[], None]:
    """Weights drawn from a seed, for the peer to load; averages far from 0 and 1."""
    leaves = jax.tree_util.tree_leaves_with_path(variables(features, depth))
    arrays = {jax.tree_util.keystr(p, simple=True, separator="/"): a for p, a in leaves}
    np.savez(path, **arrays)
    return lambda: None


@functools.cache
def variables(features: int, depth: int = 4) -> dict[str, Any]:
    """Draws weights on the host: the peer compiles nothing for its weights either."""
    config = ours_training.config_of(features, PATCH, 1, depth)
    state = empty_state(config, UNet3D(features, depth))
    rng = np.random.default_rng(1)

    def draw(path, leaf):
        spread = rng.standard_normal(leaf.shape).astype(np.float32)
        known = {
            "kernel": np.sqrt(2 / max(1, np.prod(leaf.shape[:-1]))) * spread,
            "scale": 1 + 0.1 * spread,
            "var": 1 + 0.1 * np.abs(spread),
        }
        return jnp.asarray(known.get(path[-1].key, 0.1 * spread), jnp.float32)

    return jax.tree_util.tree_map_with_path(draw, variables_of(state))


def samples(
    features: int, patch, windows: int, rate: float, kind: str, dtype: str = "float32"
):
    """Draws ten samples of `windows` windows, as `build_monte_carlo` draws them."""
    shape = (patch[0] * windows, *patch[1:])  # side by side
    return case(features, patch, shape, 0.0, windows, rate, kind, 10, dtype)


def case(
    features: int, patch, size, overlap: float, windows: int, rate: float, kind: str,
    count: int, dtype: str = "float32", depth: int = 4,
):  # fmt: skip
    """Draws `count` samples over a volume with the paper's measures."""
    model = UNet3D(
        features,
        depth,
        dropout_rate=rate,
        dropout_kind=kind,
        dtype=jnp.dtype(dtype),
    )
    run = build_monte_carlo(
        model,
        samples=count,
        patch_shape=patch,
        overlap=overlap,
        mask_scope="volume",
        window_batch=windows,
        chunk=default_chunk(
            count,
            values=windows * math.prod(patch) * features,
            bytes_each=model.dtype.itemsize,
            memory=devices.memory_bytes(),
        ),
    )
    volume = np.random.default_rng(0).standard_normal(size, np.float32)
    key = jax.random.key(0)

    def once() -> dict[str, float]:
        found = run(variables(features, depth), volume, key)
        numbers = {name: MEASURES[name].of(found) for name in PAPER_MEASURES}
        return {"d_pw": numbers["d_pw"], "mean": float(jnp.mean(found.mean))}

    return once


def plain(features: int, patch: list[int], size: list[int], path: str):
    """Runs a pass without dropout; its probabilities go to a file to be compared."""
    predict = build_point_prediction(
        UNet3D(features), patch_shape=patch, overlap=0.0, window_batch=2
    )
    volume = np.random.default_rng(0).standard_normal(size, np.float32)
    with jax.default_matmul_precision("highest"):
        np.save(path, np.asarray(predict(variables(features), volume)))
    return lambda: None


def d_pw(size: list[int]) -> Callable[[], float]:
    """Returns the mean pairwise Dice of ten packed masks."""
    rng = np.random.default_rng(0)
    masks = np.stack([rng.random(size, np.float32) < 0.3 for _ in range(10)])
    packed = np.packbits(masks, axis=-1)
    return lambda: pairwise_dice_packed(packed)


TASKS = {
    "machine": machine,
    "conv": conv,
    "weights": weights,
    "nothing": lambda: lambda: None,
    "train": ours_training.train,
    "fed": ours_training.fed,
    "samples": samples,
    "case": case,
    "plain": plain,
    "d_pw": d_pw,
}


def device() -> Device:
    """Returns the device's facts; its peak is the process's: JAX cannot reset it."""
    if jax.default_backend() == "cpu":
        return HOST

    def peak_mb() -> float:
        stats = jax.local_devices()[0].memory_stats() or {}
        return stats.get("peak_bytes_in_use", 0) / 2**20

    return Device(lambda: None, lambda: None, peak_mb)


if __name__ == "__main__":
    with returning_memory():  # as the entry points do
        serve(TASKS, device())
