"""Where training patches come from: device memory, or the host when it is too small.

Both ways give the same patches for the same step, so a run may change between them.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unc_jax.data.cohort import Cohort
from unc_jax.data.patches import draw_corners
from unc_jax.fields import Config
from unc_jax.keys import key_for
from unc_jax.segmentation.train import TrainState

RESIDENCES = ("auto", "device", "host")

# A function (state, step) -> (state, losses of the steps taken).
Feed = Callable[[TrainState, int], tuple[TrainState, Array]]


def fits_device(cohort: Cohort) -> bool:
    """Whether the training set takes at most half of the device's memory.

    A CPU's memory is what the system says is available now.
    """
    cases = len(cohort.split.train)
    size = cases * (cohort.images[0].nbytes + cohort.labels[0].nbytes)
    stats = jax.devices()[0].memory_stats() or {}
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return size <= 0.5 * stats.get("bytes_limit", available)


def build_feed(config: Config, cohort: Cohort, train_step: Callable) -> Feed:
    """The feed that `config.train.residence` asks for."""
    residence = config.train.residence
    if residence == "auto":
        residence = "device" if fits_device(cohort) else "host"
    build = {"device": _device_feed, "host": _host_feed}[residence]
    return build(config, cohort, train_step)


def _train_indices(cohort: Cohort) -> np.ndarray:
    place = {case: index for index, case in enumerate(cohort.ids)}
    return np.array([place[case] for case in cohort.split.train])


def _build_draw(config: Config, cohort: Cohort) -> Callable[[Array], tuple]:
    """A function step -> (cases, corners); cases count within the training set."""
    train = config.train
    indices = _train_indices(cohort)
    foreground = jnp.asarray(cohort.foreground[indices])
    counts = jnp.asarray(cohort.foreground_counts[indices])
    key = key_for(config.seed, "patches")

    def draw(step: Array) -> tuple[Array, Array]:
        return draw_corners(
            key,
            step,
            foreground,
            counts,
            batch=train.batch,
            patch_shape=train.patch_shape,
            volume_shape=cohort.labels.shape[1:],
            foreground_fraction=train.foreground_fraction,
        )

    return draw


def _device_feed(config: Config, cohort: Cohort, train_step: Callable) -> Feed:
    draw = _build_draw(config, cohort)
    indices = _train_indices(cohort)
    images, labels = (
        jnp.stack([array[i] for i in indices])
        for array in (cohort.images, cohort.labels)
    )
    patch_shape = tuple(config.train.patch_shape)

    def cut(volumes: Array, cases: Array, corners: Array) -> Array:
        def one(case: Array, corner: Array) -> Array:
            start = (case, *corner)
            return lax.dynamic_slice(volumes, start, (1, *patch_shape))[0]

        return jax.vmap(one)(cases, corners)

    def many_steps(state: TrainState, images: Array, labels: Array):
        def one_step(state: TrainState, _):
            cases, corners = draw(state.step)
            batch = cut(images, cases, corners), cut(labels, cases, corners)
            return train_step(state, batch)

        return lax.scan(one_step, state, length=config.train.steps_per_call)

    many_steps = jax.jit(many_steps, donate_argnums=0)
    return lambda state, step: many_steps(state, images, labels)


def _host_feed(config: Config, cohort: Cohort, train_step: Callable) -> Feed:
    draw = _build_draw(config, cohort)
    indices = _train_indices(cohort)
    per_call = config.train.steps_per_call
    draw_many = jax.jit(lambda first: jax.vmap(draw)(first + jnp.arange(per_call)))
    px, py, pz = config.train.patch_shape

    def gather(first: int) -> tuple[np.ndarray, np.ndarray]:
        cases, corners = jax.device_get(draw_many(jnp.int32(first)))
        places = [
            (indices[case], slice(x, x + px), slice(y, y + py), slice(z, z + pz))
            for case, (x, y, z) in zip(
                cases.ravel(), corners.reshape(-1, 3), strict=True
            )
        ]
        shape = (*cases.shape, px, py, pz)
        images = np.stack([cohort.images[place] for place in places])
        labels = np.stack([cohort.labels[place] for place in places])
        return images.reshape(shape), labels.reshape(shape)

    scan = jax.jit(
        lambda state, batches: lax.scan(train_step, state, batches), donate_argnums=0
    )
    # One thread reads the patches of the next call while the device computes this one.
    worker = ThreadPoolExecutor(1)
    ahead: dict = {}

    def feed(state: TrainState, step: int):
        batches = ahead.pop(step).result() if step in ahead else gather(step)
        ahead[step + per_call] = worker.submit(gather, step + per_call)
        return scan(state, batches)

    return feed
