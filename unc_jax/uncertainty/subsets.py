"""The paper's measures of subsets of a case's samples, for their standard errors.

Each function takes the prediction of N samples and k subsets of m of their indices,
int (k, m), and returns the k values, float64 (k,).
"""

import numpy as np
from scipy import special

from unc_jax.uncertainty.packed_masks import dice_table
from unc_jax.uncertainty.prediction import THRESHOLD, Prediction


def cv(prediction: Prediction, chosen: np.ndarray) -> np.ndarray:
    """Returns the coefficient of variation of the volumes, in voxels."""
    volumes = prediction.volumes[chosen].astype(float)
    return volumes.var(axis=1) / (volumes.mean(axis=1) + 1)


def mean_pairwise_dice(prediction: Prediction, chosen: np.ndarray) -> np.ndarray:
    """Returns the mean Dice of the pairs of samples."""
    table = dice_table(prediction.masks)
    first, second = np.triu_indices(chosen.shape[1], 1)
    return table[chosen[:, first], chosen[:, second]].mean(axis=1)


def labelled_uncertainty(prediction: Prediction, chosen: np.ndarray) -> np.ndarray:
    """Returns the mean of U over the mask of each subset, nats.

    NaN where that mask is empty, and for samples that are masks.
    """
    samples = np.asarray(prediction.sparse, np.float16)
    samples = samples.reshape(len(samples), -1)
    # Only voxels with some p >= 0.5 can be in the mask of a subset. Non-negative floats
    # are ordered like their bits, which compare many times faster.
    bits = samples.view(np.uint16).max(axis=0)
    samples = samples[:, bits >= np.float16(THRESHOLD).view(np.uint16)]
    samples = samples.astype(np.float32)
    terms = special.entr(samples)
    means = [
        _mean(terms[one].mean(axis=0)[samples[one].mean(axis=0) >= THRESHOLD])
        for one in chosen
    ]
    return np.full(len(chosen), np.nan) if prediction.hard else np.array(means)


def _mean(inside: np.ndarray) -> float:
    return float(inside.mean(dtype=np.float64)) if inside.size else np.nan
