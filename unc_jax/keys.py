"""Random keys: every random number is a pure function of (seed, purpose, index)."""

import jax
from jax import Array

_PURPOSES = ("init", "patches", "dropout", "flips", "monte_carlo")


def key_for(seed: int, purpose: str) -> Array:
    """Returns the typed key of one purpose, to fold step, case, sample or window in.

    Streams of different purposes never meet, and no key is ever stored: a run resumed
    at step k draws what an uninterrupted one drew. An unknown purpose is a ValueError.
    """
    return jax.random.fold_in(jax.random.key(seed), _PURPOSES.index(purpose))
