"""Training as this package does it: one update, alone or fed from a cohort."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.contender import cohort
from configs import base
from unc_jax.data.cohort import Cohort
from unc_jax.data.split import Split
from unc_jax.segmentation.feed import Feed, build_feed, repeat
from unc_jax.segmentation.train import TrainState, build_train_step, create_state
from unc_jax.segmentation.unet import UNet3D


def config_of(features: int, patch, batch: int, depth: int = 4):
    config = base.get_config()
    config.loss.name = "dice"
    config.model.features, config.model.depth = features, depth
    config.train.patch_shape, config.train.batch = tuple(patch), batch
    return config


def train(
    features: int, patch: list[int], batch: int, dtype: str = "float32", steps: int = 1,
    depth: int = 4,
) -> Callable[[], float]:  # fmt: skip
    """Updates, a call each: forward, gradients, NAdam; dropout, batch statistics on."""
    config = config_of(features, patch, batch, depth)
    model = UNet3D(features, depth, dtype=jnp.dtype(dtype))
    step = repeat(build_train_step(config, model), lambda state, data, i: data, 1)
    images = jax.random.normal(jax.random.key(0), (batch, *patch))
    data = images, (images > 1).astype(jnp.uint8)
    held = [create_state(config, model)]

    def run() -> float:
        for _ in range(steps):
            held[0], losses = step(held[0], data)
        return float(losses[-1])

    return run


def fed(
    features: int, patch, batch: int, cases: int, size, dtype: str = "float32",
    steps: int = 1, depth: int = 4,
) -> Callable[[], float]:  # fmt: skip
    """Updates in one call, on patches drawn from a resident cohort."""
    feed, state = resident_feed(
        features,
        patch,
        batch,
        *cohort(cases, size),
        steps_per_call=steps,
        dtype=dtype,
        depth=depth,
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
    dtype: str = "float32",
    depth: int = 4,
) -> tuple[Feed, TrainState]:
    """Returns the training loop's feed over a cohort on the device, and step 0."""
    config = config_of(features, patch, batch, depth)
    config.train.steps_per_call, config.train.residence = steps_per_call, "device"
    model = UNet3D(features, depth, dtype=jnp.dtype(dtype))
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
        settings={},
    )
    feed = build_feed(config, held, build_train_step(config, model))
    return feed, create_state(config, model)
