"""Resources that a compiled program needs on one device."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from unc_jax.segmentation import devices


class Footprint(NamedTuple):
    """Holds the resources that a program needs on one device.

    memory: bytes of arguments, results and temporaries together; 0 if XLA does not
    report them. compile_s: seconds to compile. seconds(): duration of a run on zeros,
    the faster of two.
    """

    memory: int
    compile_s: float
    seconds: Callable[[], float]


def footprint(
    function: Callable, arguments: Any, *, donate: tuple[int, ...] = ()
) -> Footprint:
    """Compiles `function` for the shapes of `arguments`, without running it.

    arguments: a tuple of pytrees of jax.ShapeDtypeStruct. donate: `donate_argnums` of
    jax.jit.
    """
    started = time.perf_counter()
    options = devices.compiler_options()
    jitted = jax.jit(function, donate_argnums=donate, compiler_options=options)
    program = jitted.lower(*arguments).compile()
    compile_s = time.perf_counter() - started
    found: Any = program.memory_analysis()
    memory = 0
    if found is not None:
        memory = found.argument_size_in_bytes + found.output_size_in_bytes
        memory += found.temp_size_in_bytes - found.alias_size_in_bytes

    def run_on_zeros() -> float:
        zeros = jax.tree.map(_zeros, arguments)
        started = time.perf_counter()
        jax.block_until_ready(program(*zeros))
        return time.perf_counter() - started

    return Footprint(memory, compile_s, lambda: min(run_on_zeros(), run_on_zeros()))


def _zeros(shape: Any) -> jax.Array:
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), shape.shape[0])
    return jnp.zeros(shape.shape, shape.dtype)
