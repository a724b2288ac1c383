"""Reduces samples on the host, masks or probabilities of any tool, to a Prediction."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy import special

from unc_jax.uncertainty.prediction import (
    LABELLED,
    SPARSE,
    THRESHOLD,
    Prediction,
    term_and_entropy,
)

# Values of a host array that are processed at once: no second copy of a volume, and
# one compiled program for volumes of every shape.
_BLOCK = 1 << 18


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
    total, sums, masks, volumes, sparse, seen = np.empty(0), None, [], [], [], []
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
        seen.append(hashlib.sha256(content.data).digest())
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
        np.stack(masks),
        np.array(volumes),
        np.stack(sparse),
        _means_inside(total, uncertainty, expected, hard=sums is None),
        hard=sums is None,
        identical=len(set(seen)) == 1 < len(masks),
        mixed=mixed,
        copies=_copies(seen, volumes),
    )


def _copies(digests: Sequence[bytes], volumes: Sequence[int]) -> int:
    """Returns how many samples equal an earlier one; empty masks do not count.

    digests, volumes: SHA-256 of each sample, and the voxels of its mask.
    """
    filled = [one for one, volume in zip(digests, volumes, strict=True) if volume]
    return len(filled) - len(set(filled))


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
    return dict(zip(LABELLED, found, strict=True))


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
        for total, entropy in zip(
            (terms, entropies), term_and_entropy(block), strict=True
        ):
            if total is not None:
                own = total.reshape(-1)[start : start + part.size]
                own += np.asarray(entropy)[: part.size]
