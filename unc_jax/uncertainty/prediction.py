"""Predictions: N samples of one volume, reduced to the sums that the measures need.

The samples are never all in memory: `reduce_samples` takes batches on the device,
`reduce_maps` arrays on the host, one after the other.
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

# A voxel belongs to the mask when its probability is at least this.
THRESHOLD = 0.5
# Identical samples may differ by rounding when batches are cut differently. Differences
# from dropout at any useful rate are far larger.
_ROUNDING = 1e-6
# Values of a host array that are processed at once: no second copy of a volume, and
# one compiled program for volumes of every shape.
_BLOCK = 1 << 18
# The samples' own probabilities are kept for every second voxel along each axis, one in
# eight: as much memory as two bits per voxel.
SPARSE = 2
# To add a name: sum it over the samples in `_add_batch` and `reduce_samples` and return
# its map in `_finish`; for the host do the same in `reduce_maps` and `_means_inside`.
_LABELLED = (
    *("uncertainty", "expected_entropy", "predictive_entropy", "mutual_information"),
)


class Prediction(NamedTuple):
    """Samples of one volume, reduced; every measure is a function of it.

    Attributes:
      mean: mean foreground probability, float32 (x, y, z); for masks the share of the
        samples that contain the voxel.
      uncertainty: U(x) of the paper, float32 (x, y, z), nats; for masks, which hold no
        probabilities, the binary entropy of `mean` (0 ... log 2).
      expected_entropy: mean binary entropy of the samples, 0 for masks; float32
        (x, y, z), nats.
      masks: the N binarised samples, bit-packed along z, uint8 (n, x, y, ceil(z / 8)).
      volumes: voxels of each sample's mask, int (n,).
      sparse: probabilities of every SPARSE-th voxel along each axis, float16
        (n, x / SPARSE, y / SPARSE, z / SPARSE), sides rounded up.
      labelled: means over the final mask, mean >= 0.5, of "uncertainty",
        "expected_entropy", "predictive_entropy" (the binary entropy of `mean`) and
        "mutual_information" (their difference, at least 0); nats, NaN where the mask is
        empty and, for the first two, where the samples are masks.
      hard: whether the samples are masks.
      mixed: whether some were masks and others probabilities; all count as masks then.
      identical: whether there are two samples or more, all the same up to rounding.
      halves: labelled "uncertainty" of the first and of the second half of the samples
        (`HalfSums.means`); () if it was not computed.

    The maps and `sparse` may be in device memory: see `on_host`.
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
    mixed: bool = False

    def on_host(self) -> "Prediction":
        """Returns the prediction with all arrays in host memory.

        Copying takes a fifth of the sampling time on a fast GPU: with many volumes,
        call it in a thread while the next volume is sampled.
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
    """Reduces samples, given as batches (k, x, y, z) of probabilities on the device.

    Sums over the samples are kept on the device; each batch's masks are bit-packed and
    moved to the host. The device's memory grows by two bits per voxel and sample. The
    maps stay on the device (`Prediction.on_host`). At least one batch is needed.
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
    """Returns the means over the samples, and sums along z within the final mask.

    The means are maps (x, y, z); the sums, (1 + len(_LABELLED), x, y), are the number
    of voxels and the values of _LABELLED. `sums` is donated to the maps, so a sum that
    does not become a map must be passed as a separate argument.
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
    """Reduces samples (x, y, z) on the host: bool, or float32 probabilities.

    A map of zeros and ones counts as a mask, whatever its type. Masks have no entropy,
    so among masks a probability map counts as its mask; a map of zeros alone is both.
    Memory: four float32 volumes for probabilities, two for masks, and three bits per
    voxel and sample. The returned maps have the memory order of the first sample (x
    fastest in a NIfTI file), because reading a full-size volume in another order takes
    ten times as long.

    Raises ValueError without any sample, and for samples of different shapes.
    """
    total, sums, masks, volumes, sparse, seen = np.empty(0), None, [], [], [], set()
    back, some_masks = np.arange(3), False
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
        some_masks |= hard and volumes[-1] > 0
        content = masks[-1] if hard else sample
        seen.add(hashlib.sha256(content.data).digest())
        if not hard:
            sums = sums or (np.zeros_like(total), np.zeros_like(total))
            _add_entropies(*sums, sample)
    if not masks:
        raise ValueError("no sample")
    mixed = some_masks and sums is not None
    if mixed:
        total, sums = _votes(masks, total.shape, back), None
        sparse = [(one >= THRESHOLD).astype(np.float16) for one in sparse]
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
        mixed=mixed,
    )


def _votes(
    masks: Sequence[np.ndarray], shape: Sequence[int], back: np.ndarray
) -> np.ndarray:
    """Returns the number of packed masks at each voxel, float32, axes as they lie."""
    votes = np.zeros(shape, np.float32)
    for mask in masks:
        whole = np.unpackbits(mask, axis=2, count=shape[back[2]])
        votes += whole.transpose(np.argsort(back))
    return votes


def _as_they_lie(
    maps: Iterable[np.ndarray],
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields samples as C-contiguous arrays, and the transposition back to (x, y, z).

    Their axes are in the memory order of the first sample. Raises ValueError for
    samples of different shapes.
    """
    order, shape = np.arange(3), None
    for sample in maps:
        if shape is None:
            shape = sample.shape
            order = np.argsort(-np.abs(sample.strides), kind="stable")
        elif sample.shape != shape:
            raise ValueError(f"sample of shape {sample.shape}, the first has {shape}")
        yield np.ascontiguousarray(sample.transpose(order)), np.argsort(order)


def _means_inside(
    mean: np.ndarray, uncertainty: np.ndarray, expected: np.ndarray, *, hard: bool
) -> dict[str, float]:
    """Returns `Prediction.labelled` of maps on the host."""
    inside = mean >= THRESHOLD
    # By SciPy, not `binary_entropy`: every mask has a different number of voxels, for
    # which JAX would compile again.
    p, expected = mean[inside], expected[inside]
    predictive = special.entr(p) - special.xlog1py(1 - p, -p)
    information = np.maximum(predictive - expected, 0)
    values = (uncertainty[inside], expected, predictive, information)
    found = [float(v.mean(dtype=np.float64)) if v.size else np.nan for v in values]
    # Masks hold no probabilities: their entropies would always be 0.
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
    """Adds -p log p and the binary entropy of `values` to arrays, block by block.

    All arrays have the shape of `values` and are C-contiguous. terms: None adds only
    the binary entropy.
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
