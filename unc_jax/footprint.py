"""What a compiled program takes: memory by XLA's own analysis, time by a short run."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_RUNS = 2


class Footprint(NamedTuple):
    """Of a program on one device.

    memory: bytes of arguments, results and temporaries together; 0 where XLA does not
    tell. compile_s: seconds to compile. seconds(): of one run, the fastest of two, on
    zeros that it allocates.
    """

    memory: int
    compile_s: float
    seconds: Callable[[], float]


def footprint(
    function: Callable, arguments: Any, *, donate: tuple[int, ...] = ()
) -> Footprint:
    """Compiles `function` for the shapes of `arguments`; runs and allocates nothing.

    arguments: a tuple of trees of jax.ShapeDtypeStruct. donate: see jax.jit.
    """
    started = time.perf_counter()
    program = jax.jit(function, donate_argnums=donate).lower(*arguments).compile()
    compile_s = time.perf_counter() - started
    analysis: Any = program.memory_analysis()
    memory = 0
    if analysis is not None:
        memory = (
            analysis.argument_size_in_bytes
            + analysis.output_size_in_bytes
            + analysis.temp_size_in_bytes
            - analysis.alias_size_in_bytes
        )

    def seconds() -> float:
        times = []
        for _ in range(_RUNS):
            zeros = jax.tree.map(_zeros, arguments)
            started = time.perf_counter()
            jax.block_until_ready(program(*zeros))
            times.append(time.perf_counter() - started)
        return min(times)

    return Footprint(memory, compile_s, seconds)


def _zeros(shape: Any) -> jax.Array:
    if jnp.issubdtype(shape.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(0), shape.shape[0])
    return jnp.zeros(shape.shape, shape.dtype)
