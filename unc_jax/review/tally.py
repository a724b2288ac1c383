"""Measures of samples that come one at a time; no two of them are held at once."""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax import Array

from unc_jax.uncertainty import measures

_BLOCK = 1 << 18  # values
_Map = Callable[[np.ndarray], Array]


class Outcome(NamedTuple):
    """What N samples say.

    Attributes:
      mean: mean foreground probability, of masks the share of votes, float32 (x, y, z).
      uncertainty: U(x) of the paper; of masks, which hold no probabilities, the binary
        entropy of `mean` (0 ... log 2). float32 (x, y, z), nats.
      volumes: voxels of each sample's mask, int (n,).
      measures: name -> value; NaN where undefined. Masks have no u_labelled and no
        u_labelled_binary: both would be 0 whatever the masks are.
      hard: every sample is a mask.
      identical: all samples are the same.
    """

    mean: np.ndarray
    uncertainty: np.ndarray
    volumes: np.ndarray
    measures: dict[str, float]
    hard: bool
    identical: bool


class Tally:
    """Takes samples by `add`, gives their `outcome`.

    Memory: four float32 volumes for probabilities, two for masks, and a bit per voxel
    and sample.
    """

    def __init__(self) -> None:
        self._total: np.ndarray | None = None
        self._entropies: tuple[np.ndarray, np.ndarray] | None = None
        self._packed: list[np.ndarray] = []
        self._volumes: list[int] = []
        self._seen: set[bytes] = set()
        self._hard = True

    def add(self, sample: np.ndarray) -> None:
        """One sample, (x, y, z): bool, or foreground probabilities, float32.

        Raises ValueError when its shape is not that of the samples before.
        """
        if self._total is None:
            self._total = np.zeros(sample.shape, np.float32)
        elif sample.shape != self._total.shape:
            raise ValueError(f"shape {sample.shape}, before {self._total.shape}")
        mask = sample >= measures.THRESHOLD
        self._packed.append(np.ascontiguousarray(np.packbits(mask, axis=-1)))
        self._volumes.append(int(np.count_nonzero(mask)))
        self._total += sample
        # A map of zeros and ones is a mask, whatever its type.
        if np.array_equal(sample, mask):
            self._seen.add(hashlib.sha256(self._packed[-1].data).digest())
            return
        self._hard = False
        self._seen.add(hashlib.sha256(np.ascontiguousarray(sample).data).digest())
        if self._entropies is None:
            self._entropies = np.zeros_like(self._total), np.zeros_like(self._total)
        terms = measures.entropy_term, measures.binary_entropy
        for total, term in zip(self._entropies, terms, strict=True):
            _add_map(total, term, sample)

    def outcome(self) -> Outcome:
        """Raises ValueError for fewer than two samples."""
        n = len(self._volumes)
        if self._total is None or n < 2:
            raise ValueError(f"measures need at least 2 samples, got {n}")
        mean = self._total / np.float32(n)
        if self._entropies is None:
            uncertainty, expected = np.zeros_like(mean), None
            _add_map(uncertainty, measures.binary_entropy, mean)
        else:
            uncertainty, expected = (total / np.float32(n) for total in self._entropies)
        volumes = np.array(self._volumes)
        found = {
            "cv": float(measures.cv_of_volumes(volumes)),
            "d_pw": measures.pairwise_dice_packed(np.stack(self._packed)),
            "cv_roy": float(measures.cv_roy_of_volumes(volumes)),
            **_labelled(mean, None if self._hard else uncertainty, expected),
        }
        return Outcome(
            mean, uncertainty, volumes, found, self._hard, len(self._seen) == 1
        )


def _labelled(
    mean: np.ndarray, uncertainty: np.ndarray | None, expected: np.ndarray | None
) -> dict[str, float]:
    """Means over the final mask, NaN without one."""
    names = ("u_labelled", "u_labelled_binary")
    names += ("predictive_entropy", "mutual_information")
    mask = mean >= measures.THRESHOLD
    if not mask.any():
        return dict.fromkeys(names, np.nan)
    predictive = _in_blocks(measures.binary_entropy, mean[mask])
    maps: list[np.ndarray | None] = [None, None, predictive, predictive]
    if uncertainty is not None and expected is not None:
        inside = uncertainty[mask], expected[mask]
        maps = [*inside, predictive, np.maximum(predictive - inside[1], 0)]
    return {
        name: np.nan if one is None else float(one.mean(dtype=np.float64))
        for name, one in zip(names, maps, strict=True)
    }


def _add_map(total: np.ndarray, function: _Map, values: np.ndarray) -> None:
    """total += function(values), some slices at a time: no second copy of a volume."""
    step = max(1, _BLOCK // values[0].size)
    for start in range(0, len(values), step):
        slab = np.ascontiguousarray(values[start : start + step], np.float32)
        added = _in_blocks(function, slab.ravel())
        total[start : start + step] += added.reshape(slab.shape)


def _in_blocks(function: _Map, values: np.ndarray) -> np.ndarray:
    """function(values) of a flat array; blocks of one size are compiled only once."""
    result = np.empty_like(values)
    for start in range(0, len(values), _BLOCK):
        part = values[start : start + _BLOCK]
        block = np.zeros(_BLOCK, np.float32)
        block[: len(part)] = part
        result[start : start + _BLOCK] = np.asarray(function(block))[: len(part)]
    return result
