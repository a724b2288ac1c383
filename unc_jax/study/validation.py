"""Mean Dice of the validation cases, by deterministic full-volume inference."""

from collections.abc import Callable
from typing import Any

import numpy as np

from unc_jax import hosts
from unc_jax.data.cohort import Cohort
from unc_jax.fields import Config
from unc_jax.segmentation import devices
from unc_jax.segmentation.sliding import build_point_prediction
from unc_jax.segmentation.train import build_model
from unc_jax.study.metrics import dice


def build_validation(
    config: Config, cohort: Cohort
) -> Callable[[dict[str, Any]], float]:
    """A function from the network's variables to the mean validation Dice.

    Dropout off, normalisation on running averages. Cases where prediction and
    reference are both empty are undefined and left out; 0 when every case is. Several
    processes share the cases, and all get the mean.
    """
    predict = build_point_prediction(
        build_model(config),
        patch_shape=config.train.patch_shape,
        overlap=config.evaluate.overlap,
        window_batch=config.evaluate.window_batch,
    )
    indices = [cohort.ids.index(case) for case in cohort.split.validation]

    def validate(variables: dict[str, Any]) -> float:
        variables = devices.replicate(variables, own=True)
        scores = np.full(len(indices), np.nan)
        for place in range(hosts.number(), len(indices), hosts.count()):
            index = indices[place]
            scores[place] = dice(
                np.asarray(predict(variables, cohort.images[index])) >= 0.5,
                cohort.labels[index] > 0,
            )
        of_process = np.arange(len(indices)) % hosts.count()
        scores = hosts.gather(scores)[of_process, np.arange(len(indices))]
        defined = scores[~np.isnan(scores)]
        return float(np.mean(defined)) if len(defined) else 0.0

    return validate
