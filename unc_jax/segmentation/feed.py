"""Training patches from device memory or, where that is too small, from the host.

Both give the same patches at the same step, so a run may switch between them.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unc_jax import runtime
from unc_jax.config import Config
from unc_jax.data.cohort import Cohort
from unc_jax.data.patches import draw_corners
from unc_jax.keys import key_for
from unc_jax.segmentation import devices
from unc_jax.segmentation.train import TrainState

RESIDENCES = ("auto", "device", "host")
RESIDENT_SHARE = 0.5  # of a device's memory, which the training set may take

# A function (state, step) -> (state, losses of the steps taken).
Feed = Callable[[TrainState, int], tuple[TrainState, Array]]


def fits_device(cohort: Cohort) -> bool:
    """Tells whether the training set takes at most RESIDENT_SHARE of a device."""
    cases = len(cohort.split.train)
    size = cases * (cohort.images[0].nbytes + cohort.labels[0].nbytes)
    return not runtime.all_max(size > RESIDENT_SHARE * devices.memory_bytes())


def build_feed(config: Config, cohort: Cohort, train_step: Callable) -> Feed:
    """Returns the feed that `config.train.residence` selects.

    Raises InputError when the batch is not divisible by the number of devices.
    """
    devices.check_batch(config.train.batch)
    residence = config.train.residence
    if residence == "auto":
        residence = "device" if fits_device(cohort) else "host"
    build = _device_feed if residence == "device" else _host_feed
    return build(config, cohort, train_step)


def _train_indices(cohort: Cohort) -> np.ndarray:
    place = {case: index for index, case in enumerate(cohort.ids)}
    return np.array([place[case] for case in cohort.split.train])


def _build_draw(config: Config, cohort: Cohort) -> Callable[[Array], tuple]:
    """Returns a function step -> (cases, corners); cases index the training set."""
    train = config.train
    indices = _train_indices(cohort)
    foreground = jnp.asarray(cohort.foreground[indices])
    counts = jnp.asarray(cohort.foreground_counts[indices])
    key = key_for(config.seed, "patches")

    def draw(step: Array) -> tuple[Array, Array]:
        """Returns cases int (batch,) and corners int (batch, 3) of an update."""
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
        devices.replicate(np.stack([array[i] for i in indices]))
        for array in (cohort.images, cohort.labels)
    )
    patch_shape = tuple(config.train.patch_shape)

    def take(state: TrainState, volumes: tuple[Array, Array], _) -> tuple[Array, Array]:
        cases, corners = draw(state.step)
        one, other = (_cut(array, cases, corners, patch_shape) for array in volumes)
        return one, other

    many_steps = repeat(train_step, take, config.train.steps_per_call)
    return lambda state, step: many_steps(state, (images, labels))


def _cut(
    volumes: Array, cases: Array, corners: Array, patch_shape: tuple[int, ...]
) -> Array:
    """Returns patches (b, *patch_shape) of volumes (cases, x, y, z)."""

    def one(case: Array, corner: Array) -> Array:
        return lax.dynamic_slice(volumes, (case, *corner), (1, *patch_shape))[0]

    return jax.vmap(one)(cases, corners)


def _host_feed(config: Config, cohort: Cohort, train_step: Callable) -> Feed:
    draw = _build_draw(config, cohort)
    indices = _train_indices(cohort)
    per_call = config.train.steps_per_call
    draw_many = jax.jit(lambda first: jax.vmap(draw)(first + jnp.arange(per_call)))
    px, py, pz = config.train.patch_shape

    def gather(first: int) -> tuple[np.ndarray, np.ndarray]:
        """Reads the patches of the call that begins with update `first`."""
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

    def take(state: TrainState, batches: tuple[Array, Array], i: Array):
        return batches[0][i], batches[1][i]

    many_steps = repeat(train_step, take, per_call)
    # One thread reads the patches of the next call while the device computes this one.
    worker = ThreadPoolExecutor(1)
    ahead: dict = {}

    def feed(state: TrainState, step: int):
        batches = ahead.pop(step).result() if step in ahead else gather(step)
        ahead[step + per_call] = worker.submit(gather, step + per_call)
        return many_steps(state, devices.replicate(batches))

    return feed


def repeat(
    train_step: Callable, take: Callable, length: int, *, scanned: bool | None = None
) -> Callable[..., tuple[TrainState, Array]]:
    """Returns a function (state, data) -> (state, losses (length,)) of `length` steps.

    Args:
      train_step: (state, batch) -> (state, loss).
      take: (state, data, i) -> the batch of step i of the call.
      length: updates per call.
      scanned: True runs all steps in one program (lax.scan), False one program per
        step. The default is True on accelerators and False on CPUs, where XLA runs the
        body of a loop at half the speed of the body alone (0.46 s against 0.25 s per
        step of the demo).
    """

    def one_step(state: TrainState, data, i: Array):
        batch = devices.split(take(state, data, i))
        return devices.gather(train_step(state, batch))

    def in_one(state: TrainState, data):
        places = jnp.arange(length)
        return lax.scan(lambda state, i: one_step(state, data, i), state, places)

    jit = functools.partial(
        jax.jit, donate_argnums=0, compiler_options=devices.compiler_options()
    )
    if jax.default_backend() != "cpu" if scanned is None else scanned:
        return jit(in_one)
    step = jit(one_step)

    def one_by_one(state: TrainState, data):
        losses = []
        for i in range(length):
            state, loss = step(state, data, i)
            losses.append(loss)
        return state, jnp.stack(losses)

    return one_by_one
