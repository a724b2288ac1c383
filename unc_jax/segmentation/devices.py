"""Data parallelism: batches are sharded over the devices, all else is replicated.

The mesh has one axis, "data", over all devices of all processes, as training uses them,
or with `own` over the devices of this process only, as in evaluation, where each
process segments its own cases. Programs are written for one device and compiled for all
(GSPMD): the means over a batch in loss and BatchNorm are over the whole batch.
"""

import functools
from typing import Any

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import psutil
from absl import logging
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from unc_jax.errors import InputError

_AXIS = "data"


def mesh(*, own: bool = False) -> Mesh:
    """Returns the mesh of all devices; own: only those of this process."""
    devices = jax.local_devices() if own else jax.devices()
    return Mesh(np.array(devices), (_AXIS,))


def split(tree: Any, *, own: bool = False) -> Any:
    """Shards the leading axis of every array over the devices, inside jit."""
    return _constrain(tree, PartitionSpec(_AXIS), own)


def gather(tree: Any, *, own: bool = False) -> Any:
    """Replicates every array on every device, inside jit."""
    return _constrain(tree, PartitionSpec(), own)


def replicate(tree: Any, *, own: bool = False) -> Any:
    """Replicates every array on every device, outside jit.

    All processes must pass the same arrays. own: only on the devices of this process,
    also for arrays that are replicated over all processes.
    """
    if jax.device_count() == 1:
        return jax.tree.map(jnp.asarray, tree)
    return jax.tree.map(
        lambda leaf: _place(np.asarray(leaf), PartitionSpec(), own), tree
    )


def zeros(shape: tuple[int, ...], *, own: bool = False) -> Array:
    """Returns float32 zeros, allocated on every device and never on the host."""
    sharding = NamedSharding(mesh(own=own), PartitionSpec())
    where = None if jax.device_count() == 1 else sharding
    return jnp.zeros(shape, jnp.float32, device=where)


@functools.cache
def compiler_options() -> dict[str, bool]:
    """Returns XLA's options for programs with convolutions, for `jax.jit`.

    On an NVIDIA GPU every convolution is channels-last: otherwise XLA passes
    channels-first arrays to cuDNN, and transposing them takes a third of a case's time
    (one H200). Empty on other devices, and if the installed XLA lacks the option.
    """
    if "cuda" not in jax.extend.backend.get_backend().platform_version.lower():
        return {}
    return accepted({"xla_gpu_force_conv_nhwc": True})


@functools.cache
def once_options() -> dict[str, int]:
    """Returns XLA's options for a program that runs once, for `jax.jit`.

    On a CPU it is optimised less, with the same results bit for bit: compiling the
    program that draws the weights of a network of 8 features takes 4 s instead of 18 s
    (two cores). Empty on other devices.
    """
    if jax.default_backend() != "cpu":
        return {}
    return accepted({"xla_backend_optimization_level": 1})


def accepted(options: dict[str, Any]) -> dict[str, Any]:
    """Returns compiler options if the installed XLA knows them all, otherwise {}."""
    try:
        jax.jit(lambda x: x, compiler_options=options).lower(0.0).compile()
    except jax.errors.JaxRuntimeError as error:
        logging.warning("without the compiler's options %s: %s", options, error)
        return {}
    return options


def memory_bytes() -> int:
    """Returns the bytes of memory of a device; of a CPU, the memory available now."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", psutil.virtual_memory().available)


def rounded_up(count: int, *, own: bool = False) -> int:
    """Returns `count`, rounded up to a multiple of the number of devices."""
    devices = jax.local_device_count() if own else jax.device_count()
    return -(-count // devices) * devices


def check_batch(batch: int) -> None:
    """Raises InputError when a batch is not divisible by the number of devices."""
    if batch % jax.device_count():
        raise InputError(
            f"train.batch is {batch}, which {jax.device_count()} devices cannot share "
            f"evenly; take {rounded_up(batch)}"
        )


def _place(array: np.ndarray, spec: PartitionSpec, own: bool) -> Array:
    sharding = NamedSharding(mesh(own=own), spec)
    return jax.make_array_from_callback(array.shape, sharding, lambda part: array[part])


def _constrain(tree: Any, spec: PartitionSpec, own: bool) -> Any:
    # On one device a constraint would only change the compiled program.
    devices = mesh(own=own)
    if devices.size == 1:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(devices, spec))
