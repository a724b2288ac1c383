"""Uncertainty measures drawn from Monte Carlo samples of one segmentation.

`samples` are foreground probabilities (n, x, y, z) of any float type; a voxel belongs
to a sample's mask when p >= 0.5, and to the final mask when the mean over samples is.
What returns an Array can be jitted and vmapped. Voxel counts are summed as int32, so
they are exact where float32 (24 bits) would not be. Probabilities of exactly 0 and 1
are fine everywhere: 0 log 0 = 0. Logarithms are natural, entropies in nats.

The paper's own measures carry plain names; variants of the literature say so in theirs.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.scipy.special import xlog1py, xlogy
from jax.typing import ArrayLike

THRESHOLD = 0.5


class Measure(NamedTuple):
    """One uncertainty measure of a case, as tables, figures and reports show it.

    Attributes:
      label: short name, in tables.
      title: long name, on axes and in the report.
      unit: of the value; "" for a ratio.
      sign: of the correlation with Dice of a measure that works: 1 for agreement of the
        samples, -1 for disagreement.
      in_paper: one of the three measures of Hoebel et al.
    """

    label: str
    title: str
    unit: str
    sign: int
    in_paper: bool


# By their columns in cases.csv.
MEASURES = {
    "cv": Measure("CV", "coefficient of variation CV", "voxels", -1, True),
    "d_pw": Measure("D_pw", "mean pairwise Dice D_pw", "", 1, True),
    "u_labelled": Measure(
        "U_labelled", "mean labelled uncertainty U_labelled", "nats", -1, True
    ),
    "cv_roy": Measure("CV (Roy)", "sd / mean of the sample volumes", "", -1, False),
    "u_labelled_binary": Measure(
        "U_labelled, binary", "mean sample entropy in the mask", "nats", -1, False
    ),
    "predictive_entropy": Measure(
        "predictive entropy", "mean predictive entropy in the mask", "nats", -1, False
    ),
    "mutual_information": Measure(
        "mutual information", "mean mutual information in the mask", "nats", -1, False
    ),
}
PAPER_MEASURES = tuple(name for name, one in MEASURES.items() if one.in_paper)


def voxelwise_uncertainty(samples: ArrayLike) -> Array:
    """Mean entropy term over samples, U(x) = -(1/N) sum_i p_i(x) log p_i(x).

    (n, x, y, z) -> (x, y, z), nats, within 0 ... 1/e. The foreground term only, as the
    paper writes it (Roy et al. 2018, per structure): it peaks at p = 1/e, not at 0.5.
    """
    return jnp.mean(entropy_term(_floats(samples)), axis=0)


def coefficient_of_variation(samples: ArrayLike) -> Array:
    """CV = Var_i(V_i) / (E_i[V_i] + 1) with V_i the voxel count of sample i.

    (n, x, y, z) -> scalar, unit voxels, population variance. The 1 keeps empty samples
    finite: their CV is 0. The measure grows with the size of the structure.
    """
    return cv_of_volumes(sample_volumes(samples))


def coefficient_of_variation_roy(samples: ArrayLike) -> Array:
    """sd_i(V_i) / E_i[V_i] (Roy et al. 2018), population sd; NaN if all are empty."""
    return cv_roy_of_volumes(sample_volumes(samples))


def mean_pairwise_dice(samples: ArrayLike) -> Array:
    """Mean Dice of the n (n - 1) / 2 pairs of binarised samples, within 0 ... 1.

    (n, x, y, z) -> scalar. Two empty samples agree: 1; an empty and a non-empty one: 0.
    Raises ValueError for fewer than two samples.
    """
    masks = _masks(samples)
    count = masks.shape[0]
    _require_pair(count)
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
    """Mean of U(x) over the final mask, the voxels with mean p >= 0.5; NaN without any.

    (n, x, y, z) -> scalar, nats, within 0 ... 1/e.
    """
    return labelled_mean(voxelwise_uncertainty(samples), mean_probability(samples))


def expected_entropy(samples: ArrayLike) -> Array:
    """Mean over samples of the full binary entropy, (n, x, y, z) -> (x, y, z), nats."""
    return jnp.mean(binary_entropy(_floats(samples)), axis=0)


def predictive_entropy(samples: ArrayLike) -> Array:
    """Binary entropy of the mean probability, (n, x, y, z) -> (x, y, z), nats."""
    return binary_entropy(mean_probability(samples))


def mutual_information(samples: ArrayLike) -> Array:
    """Predictive minus expected entropy: what the samples disagree on.

    (n, x, y, z) -> (x, y, z), 0 ... log 2 nats (Houlsby et al. 2011). Rounding below 0
    is cut off.
    """
    return jnp.maximum(predictive_entropy(samples) - expected_entropy(samples), 0.0)


def mean_labelled_expected_entropy(samples: ArrayLike) -> Array:
    """`mean_labelled_uncertainty` with both entropy terms; NaN for an empty mask."""
    return labelled_mean(expected_entropy(samples), mean_probability(samples))


def mean_labelled_predictive_entropy(samples: ArrayLike) -> Array:
    """Mean of `predictive_entropy` over the final mask; NaN for an empty mask."""
    return labelled_mean(predictive_entropy(samples), mean_probability(samples))


def mean_labelled_mutual_information(samples: ArrayLike) -> Array:
    """Mean of `mutual_information` over the final mask; NaN for an empty mask."""
    return labelled_mean(mutual_information(samples), mean_probability(samples))


# Building blocks, for callers that stream samples and never hold all of them.


def entropy_term(probabilities: ArrayLike) -> Array:
    """-p log p elementwise, 0 at p = 0 and p = 1."""
    p = _floats(probabilities)
    return -xlogy(p, p)


def binary_entropy(probabilities: ArrayLike) -> Array:
    """-p log p - (1 - p) log(1 - p) elementwise, 0 at p = 0 and p = 1."""
    p = _floats(probabilities)
    return -xlogy(p, p) - xlog1py(1.0 - p, -p)


def mean_probability(samples: ArrayLike) -> Array:
    """Mean over samples, (n, x, y, z) -> (x, y, z) float32."""
    return jnp.mean(_floats(samples), axis=0)


def labelled_mean(values: ArrayLike, mean: ArrayLike) -> Array:
    """Mean of a map over the voxels whose mean probability is >= 0.5; NaN without any.

    Both (x, y, z) -> scalar.
    """
    values = _floats(values)
    mask = jnp.asarray(mean) >= THRESHOLD
    voxels = jnp.sum(mask, dtype=jnp.int32).astype(jnp.float32)
    total = jnp.sum(jnp.where(mask, values, 0.0))
    return jnp.where(voxels > 0, total / jnp.maximum(voxels, 1.0), jnp.nan)


def sample_volumes(samples: ArrayLike) -> Array:
    """Voxel count of every binarised sample, (n, x, y, z) -> (n,) int32, exact."""
    masks = _masks(samples)
    return jnp.sum(masks, axis=tuple(range(1, masks.ndim)), dtype=jnp.int32)


def cv_of_volumes(volumes: ArrayLike) -> Array:
    """Var(V) / (E[V] + 1) of sample volumes in voxels, (n,) -> scalar."""
    mean, variance = _moments(volumes)
    return variance / (mean + 1.0)


def cv_roy_of_volumes(volumes: ArrayLike) -> Array:
    """sd(V) / E[V] of sample volumes, (n,) -> scalar; NaN where E[V] = 0."""
    mean, variance = _moments(volumes)
    relative = jnp.sqrt(variance) / jnp.where(mean > 0, mean, 1.0)
    return jnp.where(mean > 0, relative, jnp.nan)


def pack_masks(masks: ArrayLike) -> Array:
    """Packs 8 voxels along z into a byte, bits ordered as numpy.packbits.

    bool (n, x, y, z) -> uint8 (n, x, y, ceil(z / 8)), filled up with zero bits.
    """
    return jnp.packbits(jnp.asarray(masks, bool), axis=-1)


def unpack_masks(packed: ArrayLike, depth: int) -> Array:
    """Inverse of `pack_masks`; `depth` is z, (n, x, y, ceil(z / 8)) -> (n, x, y, z)."""
    bits = jnp.unpackbits(jnp.asarray(packed, jnp.uint8), axis=-1, count=depth)
    return bits.astype(bool)


def pairwise_dice_packed(packed: np.ndarray) -> float:
    """`mean_pairwise_dice` of masks packed by `pack_masks`, on the host, exact counts.

    uint8 (n, x, y, bytes) -> float. Ten masks of 256^3 voxels are 21 MB; temporaries
    are of the size of one mask. Raises ValueError for fewer than two samples.
    """
    _require_pair(len(packed))
    words = _words(np.asarray(packed))
    volumes = [_ones(mask) for mask in words]
    pairs = list(itertools.combinations(range(len(words)), 2))
    total = 0.0
    for i, j in pairs:
        size = volumes[i] + volumes[j]
        total += 2 * _ones(words[i] & words[j]) / size if size else 1.0
    return total / len(pairs)


def _floats(values: ArrayLike) -> Array:
    # Half-precision probabilities are exact in float32; their logarithms need it.
    return jnp.asarray(values).astype(jnp.float32)


def _masks(samples: ArrayLike) -> Array:
    return jnp.asarray(samples) >= THRESHOLD


def _moments(volumes: ArrayLike) -> tuple[Array, Array]:
    # Differences to the first sample are exact integers and small. Squares of volumes
    # around 10^7 would leave float32 with no digits for their variance.
    volumes = jnp.asarray(volumes)
    offsets = (volumes - volumes[:1]).astype(jnp.float32)
    mean = volumes[0].astype(jnp.float32) + jnp.mean(offsets)
    return mean, jnp.var(offsets)


def _require_pair(count: int) -> None:
    if count < 2:
        raise ValueError(f"pairwise Dice needs at least 2 samples, got {count}")


def _words(packed: np.ndarray) -> np.ndarray:
    # Whole 64-bit words count eight times faster than bytes; zero bits add nothing.
    flat = np.ascontiguousarray(packed, np.uint8).reshape(len(packed), -1)
    missing = -flat.shape[1] % 8
    if missing:
        flat = np.pad(flat, ((0, 0), (0, missing)))
    return flat.view(np.uint64)


def _ones(words: np.ndarray) -> int:
    return int(np.bitwise_count(words).sum(dtype=np.int64))
