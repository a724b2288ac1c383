"""Predictions: N samples of one volume, reduced to what the measures need of them.

Samples come some at a time and are never all held: `reduce_samples` takes batches on
the device, `reduce_maps` arrays on the host, one after the other.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import xlog1py, xlogy
from jax.typing import ArrayLike
from scipy import special

from unc_jax.uncertainty.packed_masks import pack_masks

# Of a probability: a voxel at or above it belongs to the mask.
THRESHOLD = 0.5
# Identical samples may differ by rounding where batches are cut differently. Dropout at
# any useful rate stays far above.
_ROUNDING = 1e-6
# Values of a host array that are worked on at once: no second copy of a volume, and
# one program for volumes of every shape.
_BLOCK = 1 << 18
# Samples themselves are kept of one voxel in eight: as much memory as two bits a voxel.
SPARSE = 2
# A further one needs its sum over the samples in `_add_batch` and `reduce_samples`, and
# its values in `_finish`; on the host in `reduce_maps` and `_means_inside`.
_LABELLED = (
    *("uncertainty", "expected_entropy", "predictive_entropy", "mutual_information"),
)


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
      sparse: probabilities of every SPARSE-th voxel along each axis, float16
        (n, x / SPARSE, y / SPARSE, z / SPARSE), sides rounded up.
      labelled: means over the final mask, mean >= 0.5, of "uncertainty",
        "expected_entropy", "predictive_entropy" (the binary entropy of `mean`) and
        "mutual_information" (their difference, at least 0); nats, NaN where the mask is
        empty and, of the first two, where the samples are masks.
      hard: every sample is a mask.
      identical: two samples or more, all the same up to rounding.
      halves: labelled "uncertainty" of the first and of the second half of the samples
        (`halves`); () where it was not summed up.

    The maps and `sparse` may lie on the device: see `on_host`.
    """

    mean: Any
    uncertainty: Any
    expected_entropy: Any
    masks: np.ndarray
    volumes: np.ndarray
    sparse: Any
    labelled: dict[str, float]
    hard: bool
    identical: bool
    halves: tuple[float, ...] = ()

    def on_host(self) -> "Prediction":
        """Returns the same with all arrays in the host's memory.

        Copying costs a fifth of the sampling time on a fast GPU: of many volumes do it
        in a thread, while the next one is sampled.
        """
        names = ("mean", "uncertainty", "expected_entropy", "sparse")
        found = jax.device_get([getattr(self, name) for name in names])
        return self._replace(**dict(zip(names, found, strict=True)))


def entropy_term(probabilities: ArrayLike) -> Array:
    """Returns -p log p elementwise, float32 nats, 0 at p = 0 and p = 1."""
    # Half-precision probabilities are exact in float32; their logarithms need it.
    p = jnp.asarray(probabilities, jnp.float32)
    return -xlogy(p, p)


def binary_entropy(probabilities: ArrayLike) -> Array:
    """Returns -p log p - (1 - p) log(1 - p) elementwise, 0 at p = 0 and p = 1."""
    p = jnp.asarray(probabilities, jnp.float32)
    return -xlogy(p, p) - xlog1py(1.0 - p, -p)


def reduce_samples(batches: Iterable[Array]) -> Prediction:
    """Reduces samples that come in batches (k, x, y, z) of probabilities.

    Batches stay on the device; sums over samples are kept there and each batch's masks
    leave it bit-packed, so its memory grows by two bits a voxel and sample. The maps
    stay there (`Prediction.on_host`). At least one batch is needed.
    """
    first, sums, sparse, leaving, spreads = None, (), [], [], []
    for batch in batches:
        if first is None:
            first = batch[:1]
            sums = tuple(jnp.zeros(batch.shape[1:], jnp.float32) for _ in range(3))
        sums, spread, of_sparse, *of_batch = _add_batch(sums, batch, first)
        sparse.append(of_sparse)
        leaving.append(jax.device_get(of_batch))
        spreads.append(spread)
    masks, volumes = map(_joined, zip(*leaving, strict=True))
    maps, rows = _finish(sums, np.float32(len(volumes)))
    # Rows are summed in float64: float32 would lose digits over millions of voxels.
    voxels, *totals = np.asarray(rows).sum(axis=(1, 2), dtype=np.float64)
    return Prediction(
        *maps,
        masks=masks,
        volumes=volumes,
        sparse=jnp.concatenate(sparse),
        labelled={
            name: float(total / voxels) if voxels else np.nan
            for name, total in zip(_LABELLED, totals, strict=True)
        },
        hard=False,
        identical=max(map(float, spreads)) <= _ROUNDING,
    )


@functools.partial(jax.jit, donate_argnums=0)
def _finish(sums: tuple[Array, ...], count: Array) -> tuple[tuple[Array, ...], Array]:
    """Divides the sums over samples; sums what lies in the final mask along z.

    Returns the maps (x, y, z) and, as (1 + len(_LABELLED), x, y), voxels and sums of
    _LABELLED. The memory of `sums` becomes that of the maps; pass a sum that becomes no
    map beside them.
    """
    mean, uncertainty, expected = maps = tuple(total / count for total in sums)
    predictive = binary_entropy(mean)
    information = jnp.maximum(predictive - expected, 0.0)
    inside = mean >= THRESHOLD
    values = (jnp.ones_like(mean), uncertainty, expected, predictive, information)
    rows = [jnp.sum(jnp.where(inside, one, 0.0), axis=2) for one in values]
    return maps, jnp.stack(rows)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def reduce_maps(maps: Iterable[np.ndarray]) -> Prediction:
    """Reduces samples (x, y, z) on the host: bool, or probabilities, float32.

    Memory: four float32 volumes for probabilities, two for masks, and three bits per
    voxel and sample. A map of zeros and ones is a mask, whatever its type.
    The maps returned have the first sample's order in memory (of a NIfTI file, x
    fastest): reading a full-size volume across it takes ten times as long.

    Raises ValueError without any sample, and for samples of two shapes.
    """
    total, sums, masks, volumes, sparse, seen = np.empty(0), None, [], [], [], set()
    back = np.arange(3)
    for sample, back in _as_they_lie(maps):
        if not masks:
            total = np.zeros(sample.shape, np.float32)
        mask = sample >= THRESHOLD
        packed = np.packbits(mask, axis=int(back[2])).transpose(back)
        masks.append(np.ascontiguousarray(packed))
        volumes.append(np.count_nonzero(mask))
        kept = sample[::SPARSE, ::SPARSE, ::SPARSE].astype(np.float16)
        sparse.append(kept.transpose(back))
        total += sample
        hard = np.array_equal(sample, mask)
        content = masks[-1] if hard else sample
        seen.add(hashlib.sha256(content.data).digest())
        if not hard:
            sums = sums or (np.zeros_like(total), np.zeros_like(total))
            _add_entropies(*sums, sample)
    if not masks:
        raise ValueError("no sample")
    count = np.float32(len(masks))
    total /= count
    if sums is None:
        expected = np.broadcast_to(np.float32(0), total.shape)
        uncertainty = np.zeros_like(total)
        _add_entropies(None, uncertainty, total)
    else:
        uncertainty, expected = sums
        uncertainty /= count
        expected /= count
    return Prediction(
        total.transpose(back),
        uncertainty.transpose(back),
        expected.transpose(back),
        np.stack(masks),
        np.array(volumes),
        np.stack(sparse),
        _means_inside(total, uncertainty, expected, hard=sums is None),
        hard=sums is None,
        identical=len(seen) == 1 < len(masks),
    )


def _as_they_lie(
    maps: Iterable[np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields samples, C-contiguous, axes as the first one's lie in memory, and the
    order that gives (x, y, z) again.

    Raises ValueError for samples of two shapes.
    """
    order, shape = np.arange(3), None
    for sample in maps:
        if shape is None:
            shape = sample.shape
            order = np.argsort(-np.abs(sample.strides), kind="stable")
        elif sample.shape != shape:
            raise ValueError(f"shape {sample.shape}, before {shape}")
        yield np.ascontiguousarray(sample.transpose(order)), np.argsort(order)


def _means_inside(
    mean: np.ndarray, uncertainty: np.ndarray, expected: np.ndarray, *, hard: bool
) -> dict[str, float]:
    """Returns `Prediction.labelled` of maps on the host."""
    inside = mean >= THRESHOLD
    # By SciPy, not by `binary_entropy`: every mask has another number of voxels, for
    # which JAX would compile anew.
    p, expected = mean[inside], expected[inside]
    predictive = special.entr(p) - special.xlog1py(1 - p, -p)
    information = np.maximum(predictive - expected, 0)
    values = (uncertainty[inside], expected, predictive, information)
    found = [float(v.mean(dtype=np.float64)) if v.size else np.nan for v in values]
    # Masks hold no probabilities: their entropies are 0 whatever they are.
    found[:2] = [np.nan, np.nan] if hard else found[:2]
    return dict(zip(_LABELLED, found, strict=True))


@functools.partial(jax.jit, donate_argnums=0)
def _add_batch(
    sums: tuple[Array, ...], batch: Array, first: Array
) -> tuple[tuple[Array, ...], Array, Array, Array, Array]:
    """Adds a batch to the sums of p, -p log p and binary entropy.

    Returns them, the batch's largest difference from the first sample, its
    sparse voxels, its packed masks and its volumes.
    """
    maps = (batch, *_entropies(batch))
    added = tuple(t + jnp.sum(m, axis=0) for t, m in zip(sums, maps, strict=True))
    masks = batch >= THRESHOLD
    volumes = jnp.sum(masks, axis=(1, 2, 3), dtype=jnp.int32)
    sparse = batch[:, ::SPARSE, ::SPARSE, ::SPARSE].astype(jnp.float16)
    spread = jnp.max(jnp.abs(batch - first))
    return added, spread, sparse, pack_masks(masks), volumes


@jax.jit
def _entropies(p: Array) -> tuple[Array, Array]:
    return entropy_term(p), binary_entropy(p)


def _add_entropies(
    terms: np.ndarray | None, entropies: np.ndarray, values: np.ndarray
) -> None:
    """Adds both entropies of `values` to arrays of its shape, a block at a time.

    All of them lie in memory as their axes say.
    """
    values = values.reshape(-1)
    for start in range(0, values.size, _BLOCK):
        part = values[start : start + _BLOCK]
        block = np.zeros(_BLOCK, np.float32)
        block[: part.size] = part
        for total, entropy in zip((terms, entropies), _entropies(block), strict=True):
            if total is not None:
                own = total.reshape(-1)[start : start + part.size]
                own += np.asarray(entropy)[: part.size]
