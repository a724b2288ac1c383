"""Predictions: N samples of one volume, reduced to what the measures need of them."""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


class Prediction(NamedTuple):
    """Samples of one volume, reduced; every measure is a function of it.

    Attributes:
      mean: mean foreground probability, of masks the share of votes, float32 (x, y, z).
      uncertainty: U(x) of the paper; of masks, which hold no probabilities, the binary
        entropy of `mean` (0 ... log 2). float32 (x, y, z), nats.
      expected_entropy: mean binary entropy of the samples, 0 for masks; float32
        (x, y, z), nats.
      masks: the N binarised samples, bit-packed along z, uint8 (n, x, y, ceil(z / 8)).
      volumes: voxels of each sample's mask, int (n,).
      hard: every sample is a mask.
      identical: all samples are the same, up to rounding.
    """

    mean: np.ndarray
    uncertainty: np.ndarray
    expected_entropy: np.ndarray
    masks: np.ndarray
    volumes: np.ndarray
    hard: bool
    identical: bool


def pack_masks(masks: ArrayLike) -> Array:
    """Packs 8 voxels along z into a byte, bits ordered as numpy.packbits.

    bool (n, x, y, z) -> uint8 (n, x, y, ceil(z / 8)), filled up with zero bits.
    """
    return jnp.packbits(jnp.asarray(masks, bool), axis=-1)


def unpack_masks(packed: ArrayLike, depth: int) -> Array:
    """Inverts `pack_masks`; `depth` is z, (n, x, y, ceil(z / 8)) -> (n, x, y, z)."""
    bits = jnp.unpackbits(jnp.asarray(packed, jnp.uint8), axis=-1, count=depth)
    return bits.astype(bool)


def pairwise_dice_packed(packed: np.ndarray) -> float:
    """Returns `mean_pairwise_dice` of masks packed by `pack_masks`, on the host.

    uint8 (n, x, y, bytes) -> float. Ten masks of 256^3 voxels are 21 MB; temporaries
    are of the size of one mask. Raises ValueError for fewer than two samples.
    """
    if len(packed) < 2:
        raise ValueError(f"pairwise Dice needs at least 2 samples, got {len(packed)}")
    words = _words(np.asarray(packed))
    volumes = [_ones(mask) for mask in words]
    pairs = list(itertools.combinations(range(len(words)), 2))
    total = 0.0
    for i, j in pairs:
        size = volumes[i] + volumes[j]
        total += 2 * _ones(words[i] & words[j]) / size if size else 1.0
    return total / len(pairs)


def _words(packed: np.ndarray) -> np.ndarray:
    # Whole 64-bit words count eight times faster than bytes; zero bits add nothing.
    flat = np.ascontiguousarray(packed, np.uint8).reshape(len(packed), -1)
    missing = -flat.shape[1] % 8
    if missing:
        flat = np.pad(flat, ((0, 0), (0, missing)))
    return flat.view(np.uint64)


def _ones(words: np.ndarray) -> int:
    return int(np.bitwise_count(words).sum(dtype=np.int64))
