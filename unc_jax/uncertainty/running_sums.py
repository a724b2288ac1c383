"""Running sums over samples of one volume, of which a Prediction is made.

Samples come some at a time and are never all held: `reduce_samples` takes batches on
the device, `reduce_maps` arrays on the host, one after the other.
"""

import functools
import hashlib
from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from unc_jax.uncertainty import measures
from unc_jax.uncertainty.prediction import Prediction, pack_masks

# Identical samples may differ by rounding where batches are cut differently. Dropout at
# any useful rate stays far above.
_ROUNDING = 1e-6
# Values of a host array that are worked on at once: no second copy of a volume, and
# one program for volumes of every shape.
_BLOCK = 1 << 18


class _Sums(NamedTuple):
    """Running sums over the samples, (x, y, z) float32 on the device."""

    probability: Array
    term: Array  # -p log p
    entropy: Array  # of both terms
    first: Array  # the first sample
    spread: Array  # (), largest difference of a later one from it


def reduce_samples(batches: Iterable[Array]) -> Prediction:
    """Reduces samples that come in batches (k, x, y, z) of probabilities.

    Batches stay on the device; sums over samples are kept there and each batch's masks
    leave it bit-packed, so memory does not grow with the number of samples. At least
    one batch is needed.
    """
    sums, masks, volumes = None, [], []
    for batch in batches:
        if sums is None:
            sums = _zeros(batch)
        sums, packed, sizes = _add(sums, batch)
        masks.append(np.asarray(packed))
        volumes.append(np.asarray(sizes))
    assert sums is not None
    all_volumes = np.concatenate(volumes)
    mean, uncertainty, expected, spread = jax.device_get(
        _divide(sums, len(all_volumes))
    )
    return Prediction(
        mean,
        uncertainty,
        expected,
        np.concatenate(masks),
        all_volumes,
        hard=False,
        identical=float(spread) <= _ROUNDING,
    )


@jax.jit
def _zeros(batch: Array) -> _Sums:
    zero = jnp.zeros(batch.shape[1:], jnp.float32)
    return _Sums(zero, zero, zero, batch[0], jnp.float32(0))


@functools.partial(jax.jit, donate_argnums=0)
def _add(sums: _Sums, batch: Array) -> tuple[_Sums, Array, Array]:
    """Returns the sums with a batch, the batch's packed masks, its volumes."""
    terms, entropies = _entropies(batch)
    added = _Sums(
        sums.probability + jnp.sum(batch, axis=0),
        sums.term + jnp.sum(terms, axis=0),
        sums.entropy + jnp.sum(entropies, axis=0),
        sums.first,
        jnp.maximum(sums.spread, jnp.max(jnp.abs(batch - sums.first[None]))),
    )
    packed = pack_masks(batch >= measures.THRESHOLD)
    return added, packed, measures.sample_volumes(batch)


@jax.jit
def _divide(sums: _Sums, samples: int) -> tuple[Array, Array, Array, Array]:
    mean, uncertainty, expected = (total / samples for total in sums[:3])
    return mean, uncertainty, expected, sums.spread


@jax.jit
def _entropies(p: Array) -> tuple[Array, Array]:
    return measures.entropy_term(p), measures.binary_entropy(p)


def reduce_maps(maps: Iterable[np.ndarray]) -> Prediction:
    """Reduces samples (x, y, z) on the host: bool, or probabilities, float32.

    Memory: four float32 volumes for probabilities, two for masks, and a bit per voxel
    and sample. A map of zeros and ones is a mask, whatever its type.

    Raises ValueError for fewer than two samples, and for samples of two shapes.
    """
    total, sums, masks, volumes, seen = None, None, [], [], set()
    for sample in maps:
        if total is None:
            total = np.zeros(sample.shape, np.float32)
        elif sample.shape != total.shape:
            raise ValueError(f"shape {sample.shape}, before {total.shape}")
        mask = sample >= measures.THRESHOLD
        masks.append(np.ascontiguousarray(np.packbits(mask, axis=-1)))
        volumes.append(int(np.count_nonzero(mask)))
        total += sample
        if np.array_equal(sample, mask):
            seen.add(hashlib.sha256(masks[-1].data).digest())
            continue
        seen.add(hashlib.sha256(np.ascontiguousarray(sample).data).digest())
        if sums is None:
            sums = np.zeros_like(total), np.zeros_like(total)
        _add_entropies(sums, sample)
    if total is None or len(masks) < 2:
        raise ValueError(f"measures need at least 2 samples, got {len(masks)}")
    count = np.float32(len(masks))
    total /= count
    if sums is None:
        expected = np.broadcast_to(np.float32(0), total.shape)
        uncertainty = np.zeros_like(total)
        _add_entropies((None, uncertainty), total)
    else:
        uncertainty, expected = sums
        uncertainty /= count
        expected /= count
    return Prediction(
        total,
        uncertainty,
        expected,
        np.stack(masks),
        np.array(volumes),
        hard=sums is None,
        identical=len(seen) == 1,
    )


def _add_entropies(
    sums: tuple[np.ndarray | None, np.ndarray], values: np.ndarray
) -> None:
    """Adds both entropies of `values` to arrays of its shape, a block at a time."""
    flat = [None if one is None else one.reshape(-1) for one in sums]
    values = np.ascontiguousarray(values).reshape(-1)
    for start in range(0, values.size, _BLOCK):
        part = values[start : start + _BLOCK]
        block = np.zeros(_BLOCK, np.float32)
        block[: part.size] = part
        for total, entropy in zip(flat, _entropies(block), strict=True):
            if total is not None:
                total[start : start + _BLOCK] += np.asarray(entropy)[: part.size]
