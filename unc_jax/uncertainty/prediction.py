"""Predictions: N samples of one volume, reduced to the sums that the measures need.

The samples are never all in memory: `reduce_samples` takes batches on the device, one
after the other; `host_samples.reduce_maps` takes arrays on the host.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import xlog1py, xlogy
from jax.typing import ArrayLike

from unc_jax.uncertainty.packed_masks import pack_masks

# A voxel belongs to the mask when its probability is at least this.
THRESHOLD = 0.5
# Identical samples may differ by rounding when batches are cut differently. Differences
# from dropout at any useful rate are far larger.
_ROUNDING = 1e-6
# The samples' own probabilities are kept for every second voxel along each axis, one in
# eight: as much memory as two bits per voxel.
SPARSE = 2
# To add a name: sum it over the samples in `_add_batch` and `reduce_samples`, and add
# its mean to `_finish`; for the host do the same in `host_samples`.
LABELLED = (
    *("uncertainty", "expected_entropy", "predictive_entropy", "mutual_information"),
)


class Prediction(NamedTuple):
    """Samples of one volume, reduced; every measure is a function of it.

    Attributes:
      mean: mean foreground probability, float32 (x, y, z); for masks the share of the
        samples that contain the voxel.
      uncertainty: U(x) of the paper, float32 (x, y, z), nats; for masks, which hold no
        probabilities, the binary entropy of `mean` (0 ... log 2).
      masks: the N binarised samples, bit-packed along z, uint8 (n, x, y, ceil(z / 8)).
      volumes: voxels of each sample's mask, int (n,).
      sparse: probabilities of every SPARSE-th voxel along each axis, float16
        (n, x / SPARSE, y / SPARSE, z / SPARSE), sides rounded up.
      labelled: means over the final mask, mean >= 0.5, of "uncertainty",
        "expected_entropy" (the mean binary entropy of the samples, 0 for masks),
        "predictive_entropy" (the binary entropy of `mean`) and "mutual_information"
        (their difference, at least 0); nats, NaN where the mask is empty and, for the
        first two, where the samples are masks.
      hard: whether the samples are masks.
      mixed: whether some were masks and others probabilities; all count as masks then.
      identical: whether there are two samples or more, all the same up to rounding.
      copies: how many samples equal an earlier one at every voxel, without empty
        masks; 0 for samples of a device.
      halves: labelled "uncertainty" of the first and of the second half of the samples
        (`HalfSums.means`); () if it was not computed.

    The maps and `sparse` may be in device memory: see `on_host`.
    """

    mean: Any
    uncertainty: Any
    masks: np.ndarray
    volumes: np.ndarray
    sparse: Any
    labelled: dict[str, float]
    hard: bool
    identical: bool
    halves: tuple[float, ...] = ()
    mixed: bool = False
    copies: int = 0

    def on_host(self) -> "Prediction":
        """Returns the prediction with all arrays in host memory.

        Copying takes a part of the sampling time on a fast GPU: with many volumes, call
        it in a thread while the next volume is sampled.
        """
        names = ("mean", "uncertainty", "sparse")
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
    sums: Any = ()
    first, sparse, leaving, spreads = None, [], [], []
    for batch in batches:
        if first is None:
            first = batch[:1]
            sums = tuple(jnp.zeros(batch.shape[1:], jnp.float32) for _ in range(3))
        sums, spread, of_sparse, *of_batch = _add_batch(sums, batch, first)
        sparse.append(of_sparse)
        leaving.append(jax.device_get(of_batch))
        spreads.append(spread)
    masks, volumes = map(_joined, zip(*leaving, strict=True))
    maps, rows = _finish(sums[:2], sums[2], np.float32(len(volumes)))
    # Rows are summed in float64: float32 would lose digits over millions of voxels.
    voxels, *totals = np.asarray(rows).sum(axis=(1, 2), dtype=np.float64)
    return Prediction(
        *maps,
        masks=masks,
        volumes=volumes,
        sparse=jnp.concatenate(sparse),
        labelled={
            name: float(total / voxels) if voxels else np.nan
            for name, total in zip(LABELLED, totals, strict=True)
        },
        hard=False,
        identical=max(map(float, spreads)) <= _ROUNDING,
    )


@functools.partial(jax.jit, donate_argnums=0)
def _finish(
    sums: tuple[Array, ...], entropies: Array, count: Array
) -> tuple[tuple[Array, ...], Array]:
    """Returns the means over the samples, and sums along z within the final mask.

    The means are maps (x, y, z) of `sums`, which are donated to them. The sums along z,
    (1 + len(LABELLED), x, y), are the number of voxels and the values of LABELLED.
    """
    mean, uncertainty = maps = tuple(total / count for total in sums)
    expected = entropies / count
    predictive = binary_entropy(mean)
    information = jnp.maximum(predictive - expected, 0.0)
    inside = mean >= THRESHOLD
    values = (jnp.ones_like(mean), uncertainty, expected, predictive, information)
    rows = [jnp.sum(jnp.where(inside, one, 0.0), axis=2) for one in values]
    return maps, jnp.stack(rows)


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


@functools.partial(jax.jit, donate_argnums=0)
def _add_batch(
    sums: tuple[Array, ...], batch: Array, first: Array
) -> tuple[tuple[Array, ...], Array, Array, Array, Array]:
    """Adds a batch to the sums of p, -p log p and binary entropy.

    Returns them, the batch's largest difference from the first sample, its
    sparse voxels, its packed masks and its volumes.
    """
    maps = (batch, *term_and_entropy(batch))
    added = tuple(t + jnp.sum(m, axis=0) for t, m in zip(sums, maps, strict=True))
    masks = batch >= THRESHOLD
    volumes = jnp.sum(masks, axis=(1, 2, 3), dtype=jnp.int32)
    sparse = batch[:, ::SPARSE, ::SPARSE, ::SPARSE].astype(jnp.float16)
    spread = jnp.max(jnp.abs(batch - first))
    return added, spread, sparse, pack_masks(masks), volumes


@jax.jit
def term_and_entropy(p: ArrayLike) -> tuple[Array, Array]:
    """Returns `entropy_term` and `binary_entropy` of probabilities."""
    return entropy_term(p), binary_entropy(p)
