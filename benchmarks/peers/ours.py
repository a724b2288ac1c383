"""The tasks of the benchmark, done by this package."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from benchmarks.peers.contender import cohort, serve
from configs import base
from unc_jax.compilation import returning_memory
from unc_jax.data.cohort import Cohort
from unc_jax.data.split import Split
from unc_jax.segmentation.conv3d import conv3d
from unc_jax.segmentation.feed import Feed, build_feed
from unc_jax.segmentation.sliding import build_point_prediction
from unc_jax.segmentation.train import (
    TrainState,
    build_train_step,
    create_state,
    empty_state,
    variables_of,
)
from unc_jax.segmentation.unet import UNet3D
from unc_jax.segmentation.upsampled import conv3d_joined, upsample
from unc_jax.uncertainty import measures
from unc_jax.uncertainty.sampling import build_monte_carlo

PATCH = (128, 128, 16)
_XLA_3D = ("NDHWC", "DHWIO", "NDHWC")


def machine() -> Callable[[], dict[str, Any]]:
    """Versions, and the best matrix product of five in GFLOP/s."""
    import time

    a = jnp.ones((3072, 3072))
    product = jax.jit(lambda a: a @ a)
    product(a).block_until_ready()
    best = 0.0
    for _ in range(5):
        started = time.perf_counter()
        product(a).block_until_ready()
        best = max(best, 2 * 3072**3 / (time.perf_counter() - started) / 1e9)
    return lambda: {"jax": jax.__version__, "peak_gflops": best}


def conv(shape, channels, low: int, form: str, gradients: bool) -> Callable[[], None]:
    """3x3x3 convolution of (1, *shape, c_in), by our form or XLA's own.

    `low` of the channels come from a volume of half the size, to be upsampled.
    """
    x, y, z = shape
    rng = np.random.default_rng(0)

    def draw(*sizes: int) -> Array:
        return jnp.asarray(rng.standard_normal(sizes), jnp.float32)

    arrays = [draw(1, z, x, y, channels[0] - low), draw(3, 3, 3, *channels)]
    if low:
        arrays.insert(0, draw(1, z // 2, x // 2, y // 2, low))

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
    compiled = jax.jit(function)

    def run() -> None:
        jax.block_until_ready(compiled(*arrays))

    return run


def weights(features: int, path: str) -> Callable[[], None]:
    """Weights drawn from a seed, for the peer to load; averages far from 0 and 1."""
    leaves = jax.tree_util.tree_leaves_with_path(_variables(features))
    arrays = {jax.tree_util.keystr(p, simple=True, separator="/"): a for p, a in leaves}
    np.savez(path, **arrays)
    return lambda: None


@functools.cache
def _variables(features: int) -> dict[str, Any]:
    """Drawn on the host: the peer compiles nothing for its weights either."""
    state = empty_state(_config(features, PATCH, 1), UNet3D(features))
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


def _config(features: int, patch, batch: int):
    config = base.get_config()
    config.loss.name = "dice"
    config.model.features = features
    config.train.patch_shape, config.train.batch = tuple(patch), batch
    return config


def train(features: int, patch: list[int], batch: int) -> Callable[[], float]:
    """One update: forward, gradients, NAdam; dropout and batch statistics on."""
    config = _config(features, patch, batch)
    model = UNet3D(features)
    step = jax.jit(build_train_step(config, model), donate_argnums=0)
    images = jax.random.normal(jax.random.key(0), (batch, *patch))
    data = images, (images > 1).astype(jnp.uint8)
    held = [create_state(config, model)]

    def run() -> float:
        held[0], loss = step(held[0], data)
        return float(loss)

    return run


def fed(features: int, patch, batch: int, cases: int, size) -> Callable[[], float]:
    """An update on patches drawn from a resident cohort."""
    feed, state = resident_feed(
        features, patch, batch, *cohort(cases, size), steps_per_call=1
    )
    held = [state]

    def run() -> float:
        held[0], losses = feed(held[0], int(held[0].step))
        return float(losses[-1])

    return run


def resident_feed(
    features: int,
    patch,
    batch: int,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps_per_call: int,
) -> tuple[Feed, TrainState]:
    """The training loop's feed over a cohort in the device's memory, and step 0."""
    config = _config(features, patch, batch)
    config.train.steps_per_call, config.train.residence = steps_per_call, "device"
    model = UNet3D(features)
    cases = len(images)
    foreground = np.argwhere(labels[0])[::7].astype(np.int16)
    ids = tuple(map(str, range(cases)))
    held = Cohort(
        path=Path(),
        images=images,
        labels=labels,
        foreground=np.broadcast_to(foreground, (cases, *foreground.shape)).copy(),
        foreground_counts=np.full(cases, len(foreground), np.int32),
        ids=ids,
        split=Split(ids, (), ()),
        records=(),
        statistics={},
        fingerprint="",
    )
    feed = build_feed(config, held, build_train_step(config, model))
    return feed, create_state(config, model)


def samples(
    features: int, patch, windows: int, rate: float, kind: str, dtype: str = "float32"
):
    """Ten samples of `windows` windows, as `build_monte_carlo` draws them on a CPU."""
    shape = (patch[0] * windows, *patch[1:])  # side by side
    return case(features, patch, shape, 0.0, windows, rate, kind, 10, dtype)


def case(
    features: int, patch, size, overlap: float, windows: int, rate: float, kind: str,
    count: int, dtype: str = "float32",
):  # fmt: skip
    """`count` samples over a volume with all measures."""
    model = UNet3D(
        features, dropout_rate=rate, dropout_kind=kind, dtype=jnp.dtype(dtype)
    )
    run = build_monte_carlo(
        model,
        samples=count,
        patch_shape=patch,
        overlap=overlap,
        mask_scope="volume",
        window_batch=windows,
        chunk=1,
    )
    volume = np.random.default_rng(0).standard_normal(size, np.float32)
    key = jax.random.key(0)

    def once() -> dict[str, float]:
        found = run(_variables(features), volume, key)
        d_pw = measures.pairwise_dice_packed(found.masks)
        return {"d_pw": d_pw, "mean": float(found.mean.mean())}

    return once


def plain(features: int, patch: list[int], size: list[int], path: str):
    """One pass without dropout; its probabilities go to a file, to be compared."""
    predict = build_point_prediction(
        UNet3D(features), patch_shape=patch, overlap=0.0, window_batch=2
    )
    volume = np.random.default_rng(0).standard_normal(size, np.float32)
    np.save(path, np.asarray(predict(_variables(features), volume)))
    return lambda: None


def d_pw(size: list[int]) -> Callable[[], float]:
    """Mean pairwise Dice of ten packed masks."""
    rng = np.random.default_rng(0)
    masks = np.stack([rng.random(size, np.float32) < 0.3 for _ in range(10)])
    packed = np.packbits(masks, axis=-1)
    return lambda: measures.pairwise_dice_packed(packed)


TASKS = {
    "machine": machine,
    "conv": conv,
    "weights": weights,
    "nothing": lambda: lambda: None,
    "train": train,
    "fed": fed,
    "samples": samples,
    "case": case,
    "plain": plain,
    "d_pw": d_pw,
}

if __name__ == "__main__":
    with returning_memory():  # as the entry points do
        serve(TASKS)
