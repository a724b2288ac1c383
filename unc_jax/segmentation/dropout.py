"""Dropout as a function of a key: what one pass through the network drops.

The random numbers of all convolutions are drawn together. On a CPU, drawing them one
convolution at a time took a quarter of the time in which a network compiles.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

DROPOUT_KINDS = ("spatial", "element", "fixed")


def channel_factors(
    key: Array, channels: Sequence[int], *, kind: str, rate: float, items: int
) -> list[Array]:
    """What each channel of each convolution is multiplied by: 0 where it is dropped.

    "spatial": each channel by itself with probability `rate`, the others times
    1 / (1 - rate) (Tompson et al., 2015). "fixed": the same number of channels every
    time, rate * c rounded, at random, the others times c / kept. That is another
    distribution: the number of survivors does not vary, so neither does the capacity
    of the network from sample to sample.

    Args:
      channels: c of each convolution.
      items: of a batch, each with a draw of its own.

    Returns:
      Per convolution (items, c), float32.
    """
    numbers = jax.random.uniform(key, (items, sum(channels)))
    parts = jnp.split(numbers, np.cumsum(channels)[:-1], axis=1)
    factors = _fixed if kind == "fixed" else _bernoulli
    return [factors(part, rate) for part in parts]


def _bernoulli(numbers: Array, rate: float) -> Array:
    return jnp.where(numbers < 1 - rate, _factor(rate), 0.0)


def _factor(rate: float) -> float:
    return 1 / (1 - rate) if rate < 1 else 0.0


def _fixed(numbers: Array, rate: float) -> Array:
    channels = numbers.shape[-1]
    kept = channels - round(rate * channels)
    rank = jnp.argsort(jnp.argsort(numbers))
    return jnp.where(rank < kept, channels / max(kept, 1), 0.0)


def scale_channels(x: Array, factors: Array) -> Array:
    """Activations (b, z, x, y, c) times factors (b or 1, c)."""
    return x * factors.astype(x.dtype)[:, None, None, None]


def drop_elements(x: Array, key: Array, *, rate: float, one_mask: bool) -> Array:
    """Each activation (b, z, x, y, c) by itself, the others times 1 / (1 - rate).

    Srivastava et al. (2014). one_mask: the items of the batch share the draw.
    """
    shape = (1, *x.shape[1:]) if one_mask else x.shape
    kept = jax.random.uniform(key, shape) < 1 - rate
    # A choice, so that the gradient keeps a byte of each activation and not a number.
    return jnp.where(kept, x * jnp.asarray(_factor(rate), x.dtype), 0)
