"""Random keys: every random number is a pure function of (seed, purpose, index)."""

import jax
from jax import Array

_PURPOSES = ("init", "patches", "dropout", "flips", "monte_carlo")


def key_for(seed: int, purpose: str) -> Array:
    """Returns the typed key of one purpose; fold step, case, sample or window into it.

    Keys of different purposes are independent, and no key is stored: a run resumed at
    step k draws the same numbers as an uninterrupted one. Raises ValueError for an
    unknown purpose.
    """
    return jax.random.fold_in(jax.random.key(seed), _PURPOSES.index(purpose))
