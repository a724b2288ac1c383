"""From samples of one volume, some at a time, to what the measures need of them."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from unc_jax.uncertainty import measures


class Prediction(NamedTuple):
    """What leaves the device for one volume.

    Attributes:
      mean: mean foreground probability over the samples, float32 (x, y, z).
      uncertainty: U(x) of the paper, float32 (x, y, z).
      masks: the N binarised samples, bit-packed along z, uint8 (n, x, y, ceil(z / 8)).
      volumes: voxels of each sample's mask, int (n,).
      u_labelled, u_labelled_binary, predictive_entropy, mutual_information: means over
        the voxels of the mean mask; NaN when it is empty.
      spread: largest difference of a sample's probability from the first one's; 0
        only when no dropout took place.
    """

    mean: np.ndarray
    uncertainty: np.ndarray
    masks: np.ndarray
    volumes: np.ndarray
    u_labelled: float
    u_labelled_binary: float
    predictive_entropy: float
    mutual_information: float
    spread: float


class _Sums(NamedTuple):
    """Over the samples so far, (x, y, z) float32."""

    probability: Array
    term: Array  # -p log p
    entropy: Array  # of both terms
    first: Array  # the first sample
    spread: Array  # (), largest difference of a later one from it


def reduce_samples(batches: Iterable[Array]) -> Prediction:
    """The Prediction of samples that come in batches (k, x, y, z) of probabilities.

    Batches stay on the device; sums over samples are kept there and each batch's masks
    leave it bit-packed, so memory does not grow with the number of samples. At least
    one batch is needed.
    """
    sums, masks, volumes = None, [], []
    for batch in batches:
        if sums is None:
            sums = _nothing_yet(batch)
        sums, packed, sizes = _add(sums, batch)
        masks.append(np.asarray(packed))
        volumes.append(np.asarray(sizes))
    assert sums is not None
    all_volumes = np.concatenate(volumes)
    fields: dict[str, Any] = jax.device_get(_finish(sums, len(all_volumes)))
    for name, array in fields.items():
        fields[name] = array if array.ndim else float(array)
    return Prediction(masks=np.concatenate(masks), volumes=all_volumes, **fields)


@jax.jit
def _nothing_yet(batch: Array) -> _Sums:
    zero = jnp.zeros(batch.shape[1:], jnp.float32)
    return _Sums(zero, zero, zero, batch[0], jnp.float32(0))


def _add_batch(sums: _Sums, batch: Array) -> tuple[_Sums, Array, Array]:
    """The sums with a batch of samples, its packed masks, its volumes in voxels."""
    added = _Sums(
        sums.probability + jnp.sum(batch, axis=0),
        sums.term + jnp.sum(measures.entropy_term(batch), axis=0),
        sums.entropy + jnp.sum(measures.binary_entropy(batch), axis=0),
        sums.first,
        jnp.maximum(sums.spread, jnp.max(jnp.abs(batch - sums.first[None]))),
    )
    packed = measures.pack_masks(batch >= measures.THRESHOLD)
    return added, packed, measures.sample_volumes(batch)


_add = jax.jit(_add_batch, donate_argnums=0)


@jax.jit
def _finish(sums: _Sums, samples: int) -> dict[str, Array]:
    mean, uncertainty = sums.probability / samples, sums.term / samples
    expected, predictive = sums.entropy / samples, measures.binary_entropy(mean)
    return {
        "mean": mean,
        "uncertainty": uncertainty,
        "u_labelled": measures.labelled_mean(uncertainty, mean),
        "u_labelled_binary": measures.labelled_mean(expected, mean),
        "predictive_entropy": measures.labelled_mean(predictive, mean),
        "mutual_information": measures.labelled_mean(predictive - expected, mean),
        "spread": sums.spread,
    }
