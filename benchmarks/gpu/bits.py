"""Whether two trainings of one process, and of two, end in the same bits."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers.ours_training import config_of
from unc_jax.segmentation.feed import repeat
from unc_jax.segmentation.train import build_train_step, create_state
from unc_jax.segmentation.unet import UNet3D


def steps(
    features: int, depth: int, patch, batch: int, dtype: str, count: int, per_call: int
) -> Callable[[], dict[str, Any]]:
    """Trains anew from the same weights on the same batch; digest of the state."""
    config = config_of(features, patch, batch, depth)
    model = UNet3D(features, depth, dtype=jnp.dtype(dtype))
    train_step = build_train_step(config, model)
    advance = repeat(train_step, lambda state, data, i: data, per_call)
    images = jax.random.normal(jax.random.key(0), (batch, *patch))
    data = images, (images > 1).astype(jnp.uint8)
    first = jax.device_get(create_state(config, model))

    def run() -> dict[str, Any]:
        state = jax.block_until_ready(jax.tree.map(jnp.asarray, first))
        started = time.perf_counter()
        for _ in range(count // per_call):
            state, losses = advance(state, data)
        loss = float(losses[-1])
        seconds = time.perf_counter() - started
        return {"digest": _digest(state), "loss": loss, "step_seconds": seconds / count}

    return run


def _digest(state) -> str:
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(jax.device_get(state)):
        total.update(np.ascontiguousarray(leaf).tobytes())
    return total.hexdigest()[:16]
