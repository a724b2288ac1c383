"""Samples from deterministic passes instead of dropout: flips and deep ensembles.

Both return a `Prediction`, as `sampling` does, so that measures, tables and reports do
not depend on the source of the samples. Dropout samples, also those of an ensemble's
members, are drawn by `sampling`.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from unc_jax.errors import InputError
from unc_jax.uncertainty.prediction import Prediction, reduce_samples

SOURCES = ("dropout", "flips", "ensemble")
# All subsets of the axes x, y, z; the first, empty one leaves the volume unchanged.
FLIPS = tuple(
    axes for count in range(4) for axes in itertools.combinations(range(3), count)
)

# From the network's variables and a volume (x, y, z) to probabilities (x, y, z).
PointPrediction = Callable[..., Array]


def build_flips(
    point_prediction: PointPrediction,
) -> Callable[[dict[str, Any], Any], Prediction]:
    """Builds a function (variables, volume (x, y, z)) -> Prediction of eight samples.

    Sample i: the volume is mirrored along FLIPS[i], segmented, and the result mirrored
    back (test-time augmentation; Wang et al., 2019). For a network that was not trained
    with flips (train.flip_axes), the spread includes its errors on mirrored anatomy.
    """

    def predict(variables: dict[str, Any], volume) -> Prediction:
        volume = np.asarray(volume)
        return reduce_samples(
            jnp.flip(point_prediction(variables, np.flip(volume, axes)), axes)[None]
            for axes in FLIPS
        )

    return predict


def build_ensemble(
    point_prediction: PointPrediction,
) -> Callable[[Sequence[dict[str, Any]], Any], Prediction]:
    """Builds a function (variables of each member, volume (x, y, z)) -> Prediction.

    Sample i is the segmentation of member i (deep ensembles; Lakshminarayanan et al.,
    2017).
    Raises InputError for fewer than two members.
    """

    def predict(members: Sequence[dict[str, Any]], volume) -> Prediction:
        if len(members) < 2:
            raise InputError(
                f"an ensemble of {len(members)} has no spread; name two members"
            )
        return reduce_samples(point_prediction(one, volume)[None] for one in members)

    return predict
