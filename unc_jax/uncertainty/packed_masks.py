"""Masks packed to one bit per voxel, and the overlap of every pair of them."""

import itertools

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike


def pack_masks(masks: ArrayLike) -> Array:
    """Packs 8 voxels along z into a byte, bits ordered as numpy.packbits.

    bool (n, x, y, z) -> uint8 (n, x, y, ceil(z / 8)), filled up with zero bits.
    """
    return jnp.packbits(jnp.asarray(masks, bool), axis=-1)


def pairwise_dice_packed(packed: np.ndarray) -> float:
    """Returns `mean_pairwise_dice` of masks packed by `pack_masks`, on the host.

    uint8 (n, x, y, bytes) -> float. Raises ValueError for fewer than two samples.
    """
    table = dice_table(packed)
    return float(table[np.triu_indices(len(table), 1)].mean())


def dice_table(packed: np.ndarray) -> np.ndarray:
    """Returns the Dice of every pair of masks packed by `pack_masks`, float64 (n, n).

    packed: uint8 (n, x, y, bytes). The Dice of two empty masks is 1. Raises ValueError
    for fewer than two samples.
    """
    if len(packed) < 2:
        raise ValueError(f"pairwise Dice needs at least 2 samples, got {len(packed)}")
    shared = shared_voxels(packed)
    volumes = np.diagonal(shared)
    sizes = volumes[:, None] + volumes
    return np.where(sizes > 0, 2 * shared / np.maximum(sizes, 1), 1.0)


def shared_voxels(packed: np.ndarray) -> np.ndarray:
    """Counts the voxels that each pair of masks packed by `pack_masks` shares.

    uint8 (n, x, y, bytes) -> int64 (n, n), with each mask's voxels on the diagonal. Ten
    masks of 256^3 voxels are 21 MB; temporaries are at most twice that.
    """
    words = _words(np.asarray(packed))
    # Most voxels of a volume are in none of the masks.
    words = words[:, np.bitwise_or.reduce(words, axis=0) != 0]
    shared = np.zeros((len(words), len(words)), np.int64)
    for i, j in itertools.combinations_with_replacement(range(len(words)), 2):
        shared[i, j] = shared[j, i] = _ones(words[i] & words[j])
    return shared


def bits_at(packed: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Returns the values of packed masks at voxels, int (m, 3) -> bool (n, m)."""
    x, y, z = places.T
    return (packed[:, x, y, z >> 3] >> (7 - (z & 7)) & 1).astype(bool)


def _words(packed: np.ndarray) -> np.ndarray:
    # Whole 64-bit words count eight times faster than bytes; zero bits add nothing.
    flat = np.ascontiguousarray(packed, np.uint8).reshape(len(packed), -1)
    missing = -flat.shape[1] % 8
    if missing:
        flat = np.pad(flat, ((0, 0), (0, missing)))
    return flat.view(np.uint64)


def _ones(words: np.ndarray) -> int:
    return int(np.bitwise_count(words).sum(dtype=np.int64))
