"""Uncertainty measures of Monte Carlo samples: formulas on arrays, the table MEASURES.

`samples` are foreground probabilities (n, x, y, z) of any float type. A voxel belongs
to a sample's mask when p >= 0.5, and to the final mask when the mean of p over the
samples is at least 0.5. Functions that return an Array can be jitted and vmapped. Voxel
counts are summed as int32, which is exact where float32 (24 bits) is not. 0 log 0 = 0.
Logarithms are natural, entropies in nats. Measures without `in_paper` are variants by
other authors.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from unc_jax.uncertainty import subsets
from unc_jax.uncertainty.packed_masks import pack_masks, pairwise_dice_packed
from unc_jax.uncertainty.prediction import (
    THRESHOLD,
    Prediction,
    binary_entropy,
    entropy_term,
)

_HALVES = 40  # random halves; the standard error then has an error of 11 %


def voxelwise_uncertainty(samples: ArrayLike) -> Array:
    """Returns U(x) = -(1/N) sum_i p_i(x) log p_i(x), the mean entropy term.

    (n, x, y, z) -> (x, y, z), nats, within 0 ... 1/e. Only the foreground term, as in
    the paper (Roy et al. 2018, per structure); its maximum is at p = 1/e, not at 0.5.
    """
    return jnp.mean(entropy_term(samples), axis=0)


def coefficient_of_variation(samples: ArrayLike) -> Array:
    """Returns CV = Var_i(V_i) / (E_i[V_i] + 1), V_i the voxel count of sample i.

    (n, x, y, z) -> scalar, unit voxels, population variance. The 1 keeps empty samples
    finite: their CV is 0. The measure grows with the size of the structure.
    """
    return cv_of_volumes(sample_volumes(samples))


def coefficient_of_variation_roy(samples: ArrayLike) -> Array:
    """Returns sd_i(V_i) / E_i[V_i] (Roy et al. 2018), V_i the voxel count of sample i.

    (n, x, y, z) -> scalar, population sd; NaN if all samples are empty.
    """
    return cv_roy_of_volumes(sample_volumes(samples))


def mean_pairwise_dice(samples: ArrayLike) -> Array:
    """Returns the mean Dice of the n (n - 1) / 2 pairs of binarised samples, 0 ... 1.

    (n, x, y, z) -> scalar. The Dice of two empty samples is 1. Raises ValueError for
    fewer than two samples.
    """
    masks = _masks(samples)
    count = masks.shape[0]
    if count < 2:
        raise ValueError(f"pairwise Dice needs at least 2 samples, got {count}")
    packed = pack_masks(masks.reshape(count, -1))

    # One row of the n x n table of intersections at a time: no n x n x voxels array.
    def shared_with_all(mask: Array) -> Array:
        bits = jax.lax.population_count(mask[None] & packed)
        return jnp.sum(bits, axis=1, dtype=jnp.int32)

    shared = jax.lax.map(shared_with_all, packed)
    first, second = np.triu_indices(count, 1)
    volumes = jnp.diagonal(shared).astype(jnp.float32)
    sizes = volumes[first] + volumes[second]
    overlap = 2.0 * shared[first, second].astype(jnp.float32)
    dice = jnp.where(sizes > 0, overlap / jnp.maximum(sizes, 1.0), 1.0)
    return jnp.mean(dice)


def mean_labelled_uncertainty(samples: ArrayLike) -> Array:
    """Returns the mean of U(x) over the final mask, mean p >= 0.5; NaN if it is empty.

    (n, x, y, z) -> scalar, nats, within 0 ... 1/e.
    """
    mask = mean_probability(samples) >= THRESHOLD
    voxels = jnp.sum(mask, dtype=jnp.int32).astype(jnp.float32)
    total = jnp.sum(jnp.where(mask, voxelwise_uncertainty(samples), 0.0))
    return jnp.where(voxels > 0, total / jnp.maximum(voxels, 1.0), jnp.nan)


def expected_entropy(samples: ArrayLike) -> Array:
    """Returns the mean binary entropy of the samples, (n, x, y, z) -> (x, y, z)."""
    return jnp.mean(binary_entropy(samples), axis=0)


def predictive_entropy(samples: ArrayLike) -> Array:
    """Returns the binary entropy of the mean probability, -> (x, y, z), nats."""
    return binary_entropy(mean_probability(samples))


def mutual_information(samples: ArrayLike) -> Array:
    """Returns predictive minus expected entropy: the disagreement of the samples.

    (n, x, y, z) -> (x, y, z), 0 ... log 2 nats (Houlsby et al. 2011). Values that
    rounding makes negative are set to 0.
    """
    return jnp.maximum(predictive_entropy(samples) - expected_entropy(samples), 0.0)


def mean_probability(samples: ArrayLike) -> Array:
    """Returns the mean over samples, (n, x, y, z) -> (x, y, z) float32."""
    return jnp.mean(jnp.asarray(samples, jnp.float32), axis=0)


def sample_volumes(samples: ArrayLike) -> Array:
    """Counts the voxels of every binarised sample, (n, x, y, z) -> (n,) int32."""
    masks = _masks(samples)
    return jnp.sum(masks, axis=tuple(range(1, masks.ndim)), dtype=jnp.int32)


def cv_of_volumes(volumes: ArrayLike) -> Array:
    """Returns Var(V) / (E[V] + 1) of sample volumes in voxels, (n,) -> scalar."""
    mean, variance = _moments(volumes)
    return variance / (mean + 1.0)


def cv_roy_of_volumes(volumes: ArrayLike) -> Array:
    """Returns sd(V) / E[V] of sample volumes, (n,) -> scalar; NaN where E[V] = 0."""
    mean, variance = _moments(volumes)
    relative = jnp.sqrt(variance) / jnp.where(mean > 0, mean, 1.0)
    return jnp.where(mean > 0, relative, jnp.nan)


def _masks(samples: ArrayLike) -> Array:
    return jnp.asarray(samples) >= THRESHOLD


def _moments(volumes: ArrayLike) -> tuple[Array, Array]:
    # Differences to the first sample are exact integers and small. Squares of volumes
    # around 10^7 would leave float32 with no digits for their variance.
    volumes = jnp.asarray(volumes)
    offsets = (volumes - volumes[:1]).astype(jnp.float32)
    mean = volumes[0].astype(jnp.float32) + jnp.mean(offsets)
    return mean, jnp.var(offsets)


class Measure(NamedTuple):
    """One uncertainty measure of a case, as tables, figures and reports show it.

    Attributes:
      label: short name, for tables.
      title: long name, for axes and the report.
      unit: unit of the value; "" for a ratio.
      sign: expected sign of the correlation with Dice: 1 for agreement of the samples,
        -1 for disagreement.
      in_paper: whether it is one of the three measures of Hoebel et al.
      of: function from a Prediction to the value, on the host; NaN where undefined.
      of_subsets: function from a Prediction and k subsets of m sample indices, int
        (k, m), to the k values, for the standard error; None: no standard error.
    """

    label: str
    title: str
    unit: str
    sign: int
    in_paper: bool
    of: Callable[[Prediction], float]
    of_subsets: Callable[[Prediction, np.ndarray], np.ndarray] | None = None


def measure_all(prediction: Prediction) -> dict[str, float]:
    """Returns every measure of MEASURES, by its name; NaN where undefined."""
    return {name: measure.of(prediction) for name, measure in MEASURES.items()}


def standard_error(prediction: Prediction, name: str) -> float:
    """Returns the standard error of a measure of MEASURES that its N samples cause.

    By the delete-half jackknife (Shao and Wu, 1989): sqrt(h / (N - h)) times the
    standard deviation of the measure over random halves of h = N // 2 samples. Unlike
    the delete-one jackknife it also holds for statistics that are not smooth, such as
    the voxels that most samples agree on, a median. NaN for fewer than four samples,
    and where the measure is undefined.
    """
    count, of_subsets = len(prediction.volumes), MEASURES[name].of_subsets
    if count < 4 or of_subsets is None:
        return np.nan
    half = count // 2
    every = np.tile(np.arange(count), (_HALVES // 2, 1))
    order = np.random.default_rng(0).permuted(every, axis=1)
    halves = np.concatenate([order[:, :half], order[:, -half:]])
    values = of_subsets(prediction, halves)
    return float(np.sqrt(half / (count - half)) * np.std(values))


# Keys are the columns of cases.csv. A new measure is one entry; if it needs a sum that
# Prediction does not hold yet, add the sum in `prediction` (see LABELLED there).
MEASURES: dict[str, Measure] = {
    "cv": Measure(
        "CV", "coefficient of variation CV", "voxels", -1, True,
        lambda prediction: float(cv_of_volumes(prediction.volumes)), subsets.cv,
    ),
    "d_pw": Measure(
        "D_pw", "mean pairwise Dice D_pw", "", 1, True,
        lambda prediction: pairwise_dice_packed(prediction.masks),
        subsets.mean_pairwise_dice,
    ),
    "u_labelled": Measure(
        "U_labelled", "mean labelled uncertainty U_labelled", "nats", -1, True,
        lambda prediction: prediction.labelled["uncertainty"],
        subsets.labelled_uncertainty,
    ),
    "cv_roy": Measure(
        "CV (Roy)", "sd / mean of the sample volumes", "", -1, False,
        lambda prediction: float(cv_roy_of_volumes(prediction.volumes)),
    ),
    "u_labelled_binary": Measure(
        "U_labelled, binary", "mean sample entropy in the mask", "nats", -1, False,
        lambda prediction: prediction.labelled["expected_entropy"],
    ),
    "predictive_entropy": Measure(
        "predictive entropy", "mean predictive entropy in the mask", "nats", -1, False,
        lambda prediction: prediction.labelled["predictive_entropy"],
    ),
    "mutual_information": Measure(
        "mutual information", "mean mutual information in the mask", "nats", -1, False,
        lambda prediction: prediction.labelled["mutual_information"],
    ),
}  # fmt: skip
PAPER_MEASURES = tuple(name for name, one in MEASURES.items() if one.in_paper)
