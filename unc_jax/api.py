"""Python interface: a run on an array, and measures of samples, all in memory.

The numbers are those of the commands `predict` and `score`; no file is written.
"""

import numpy as np
from numpy.typing import ArrayLike

from unc_jax.errors import InputError
from unc_jax.uncertainty.measures import measure_all
from unc_jax.uncertainty.running_sums import reduce_maps


def score(samples: ArrayLike) -> dict[str, float]:
    """Returns the uncertainty measures of samples that any tool made, by their names.

    Args:
      samples: (n, x, y, z), n >= 2: masks (bool, or 0 and 1) or foreground
        probabilities. Masks have no `u_labelled` and no `u_labelled_binary`: both
        would be 0 whatever the masks are.

    Returns:
      One number per entry of `unc_jax.uncertainty.measures.MEASURES`, as `score`
      writes it into cases.csv; NaN where it is undefined.

    Raises:
      InputError: another shape, or values outside 0 ... 1.
    """
    samples = np.asarray(samples)
    if samples.ndim != 4 or len(samples) < 2:
        raise InputError(f"samples of shape {samples.shape}; (n, x, y, z), n >= 2")
    return measure_all(reduce_maps(_checked(sample) for sample in samples))


def _checked(sample: np.ndarray) -> np.ndarray:
    # The comparison is false for NaN too.
    if not np.all((sample >= 0) & (sample <= 1)):
        raise InputError("a sample has values outside 0 ... 1; probabilities?")
    return sample.astype(np.float32 if sample.dtype.kind == "f" else bool)
