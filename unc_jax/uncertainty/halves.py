"""Measures of the two halves of a volume's samples, for their reliability.

Of N samples the first N // 2 are one half and the next N // 2 the other; the last of
an odd N is in neither. Fewer than four samples have no halves. The sums for each half
are accumulated while the samples are drawn: no sample is drawn again or stored.
"""

import functools
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES
from unc_jax.uncertainty.prediction import THRESHOLD, Prediction, entropy_term

FEWEST = 4  # samples; with fewer, a half has no pair for D_pw
# Columns of cases.csv: cv_half1, cv_half2, d_pw_half1 ...
HALF_COLUMNS = tuple(f"{name}_half{n}" for name in PAPER_MEASURES for n in (1, 2))


def measure_halves(prediction: Prediction) -> dict[str, float]:
    """Returns the paper's measures of each half, by HALF_COLUMNS; {} without halves."""
    size = len(prediction.volumes) // 2
    found = {}
    for number, uncertainty in enumerate(prediction.halves):
        own = slice(number * size, (number + 1) * size)
        # A half has no maps; with None, code that reads them fails.
        half = prediction._replace(
            **dict.fromkeys(("mean", "uncertainty", "sparse")),
            masks=prediction.masks[own],
            volumes=prediction.volumes[own],
            labelled={"uncertainty": uncertainty},
            halves=(),
        )
        for name in PAPER_MEASURES:
            found[f"{name}_half{number + 1}"] = MEASURES[name].of(half)
    return found


class HalfSums:
    """Accumulates p and -p log p over each half of `samples` samples, batch by batch.

    Memory: two float32 volumes, for the current half.
    """

    def __init__(self, samples: int) -> None:
        self._size = samples // 2 if samples >= FEWEST else 0
        self._seen = 0
        self._sums: tuple[Array, Array] | None = None
        self._rows: list[Array] = []

    def watch(self, batches: Iterable[Array]) -> Iterator[Array]:
        """Yields the batches (k, x, y, z) of probabilities, adding each to the sums."""
        for batch in batches:
            if self._size:
                self._add(batch)
            yield batch

    def means(self) -> tuple[float, ...]:
        """Returns the mean of U over each half's own mask; () without halves.

        In nats; NaN where the mask (mean p >= 0.5) is empty. Call it after all batches.
        """
        # Rows are summed in float64: float32 would lose digits over millions of voxels.
        totals = [np.asarray(one).sum(axis=(1, 2), dtype=float) for one in self._rows]
        return tuple(float(u / n) if n else np.nan for n, u in totals)

    def _add(self, batch: Array) -> None:
        halves = (self._seen + np.arange(len(batch))) // self._size
        self._seen += len(batch)
        for half in {0, 1}.intersection(halves):
            zeros = [jnp.zeros(batch.shape[1:], jnp.float32) for _ in range(2)]
            self._sums = _add_samples(self._sums or tuple(zeros), batch, halves == half)
            if self._seen >= (half + 1) * self._size:
                self._rows.append(_sum_inside(self._sums, np.float32(self._size)))
                self._sums = None


@functools.partial(jax.jit, donate_argnums=0)
def _add_samples(
    sums: tuple[Array, Array], batch: Array, chosen: Array
) -> tuple[Array, ...]:
    """Adds the chosen samples of a batch, bool (k,), to the sums of p and -p log p."""
    mask = chosen[:, None, None, None]
    maps = (batch, entropy_term(batch))
    pairs = zip(sums, maps, strict=True)
    return tuple(t + jnp.sum(jnp.where(mask, m, 0.0), axis=0) for t, m in pairs)


@jax.jit
def _sum_inside(sums: tuple[Array, Array], count: Array) -> Array:
    """Returns voxels of the mask and the sum of U over them along z, (2, x, y)."""
    mean, uncertainty = (total / count for total in sums)
    inside = mean >= THRESHOLD
    values = (jnp.ones_like(mean), uncertainty)
    return jnp.stack([jnp.sum(jnp.where(inside, v, 0.0), axis=2) for v in values])
