"""Calibration of voxel probabilities: reliability, ECE, Brier score and NLL.

Of the foreground probability against its frequency. Voxels are summed case by case and
the sums added, so that no more than one case is ever in memory. In a whole scan most
voxels are plain background and make any model look calibrated: sum the voxels near the
target (a mask by `within`) to see the boundary.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

BINS = 15
# float32 probabilities are exactly 0 or 1 long before the network is certain.
_FLOOR = 1e-7


class VoxelSums(NamedTuple):
    """Sums over voxels, per bin of probability: float64 (bins,); and overall."""

    count: np.ndarray
    probability: np.ndarray
    foreground: np.ndarray
    squared_error: float
    log_loss: float  # nats

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON; `from_json` gives the same back."""
        return {name: np.asarray(one).tolist() for name, one in self._asdict().items()}

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> "VoxelSums":
        """Reads `to_json`; KeyError or TypeError for anything else."""
        return cls(
            count=np.array(stored["count"], float),
            probability=np.array(stored["probability"], float),
            foreground=np.array(stored["foreground"], float),
            squared_error=float(stored["squared_error"]),
            log_loss=float(stored["log_loss"]),
        )


class Calibration(NamedTuple):
    """Means over n voxels; all None without a voxel."""

    ece: float | None
    brier: float | None
    nll: float | None  # nats
    n: int


class Reliability(NamedTuple):
    """Mean probability, frequency of foreground (NaN if empty) and voxels by bin."""

    probability: np.ndarray
    frequency: np.ndarray
    count: np.ndarray


def sum_voxels(
    probabilities: ArrayLike,
    labels: ArrayLike,
    *,
    within: ArrayLike | None = None,
    bins: int = BINS,
) -> VoxelSums:
    """Returns the sums of one case from foreground probabilities and 0/1 labels.

    within: boolean mask of the voxels to count, default all. Bins are of equal width on
    0 ... 1, the last one closed. Raises ValueError when shapes differ or a probability
    is not within 0 ... 1.
    """
    p, y = np.asarray(probabilities), np.asarray(labels) != 0
    if p.shape != y.shape:
        raise ValueError(f"probabilities {p.shape} and labels {y.shape} differ")
    if within is None:
        p, y = p.ravel(), y.ravel()
    else:
        chosen = np.asarray(within, bool)
        p, y = p[chosen], y[chosen]
    p = p.astype(np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError("a probability is not within 0 ... 1")
    place = np.minimum((p * bins).astype(int), bins - 1)
    likelihood = np.clip(np.where(y, p, 1 - p), _FLOOR, 1.0)
    return VoxelSums(
        np.bincount(place, minlength=bins).astype(float),
        np.bincount(place, weights=p, minlength=bins),
        np.bincount(place, weights=y.astype(float), minlength=bins),
        float(np.sum((p - y) ** 2)),
        float(-np.log(likelihood).sum()),
    )


def total(sums: Iterable[VoxelSums]) -> VoxelSums:
    """Returns the sums over all voxels together; at least one case is needed."""
    return VoxelSums._make(sum(column) for column in zip(*sums, strict=True))


def calibration(sums: VoxelSums) -> Calibration:
    """Returns ECE, Brier score and NLL.

    ECE = sum_b (n_b / n) |mean probability_b - frequency_b| (Naeini et al., 2015),
    Brier = mean (p - y)^2, NLL = mean -log of the probability of the label.

    A probability below 1e-7 of what is there counts as 1e-7, so NLL is at most 16.1.
    """
    n = int(sums.count.sum())
    if n == 0:
        return Calibration(None, None, None, 0)
    # n_b |a/n_b - b/n_b| = |a - b|, so empty bins need no special case.
    ece = float(np.abs(sums.probability - sums.foreground).sum()) / n
    return Calibration(ece, sums.squared_error / n, sums.log_loss / n, n)


def reliability(sums: VoxelSums) -> Reliability:
    """Returns the reliability diagram: frequency against mean probability, by bin."""
    filled = sums.count > 0
    count = np.where(filled, sums.count, 1.0)
    return Reliability(
        np.where(filled, sums.probability / count, np.nan),
        np.where(filled, sums.foreground / count, np.nan),
        sums.count,
    )
