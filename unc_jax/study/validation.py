"""Validation during training: the mean Dice of one deterministic pass."""

from collections.abc import Callable
from typing import Any

import numpy as np

from unc_jax import runtime
from unc_jax.config import Config
from unc_jax.data.cohort import Cohort
from unc_jax.segmentation import devices
from unc_jax.segmentation.models import build_model
from unc_jax.segmentation.sliding import build_point_prediction
from unc_jax.study.metrics import dice


def build_validation(
    config: Config, cohort: Cohort
) -> Callable[[dict[str, Any], Callable[[], bool]], float | None]:
    """Builds a function from the network's variables to the mean validation Dice.

    Its second argument is a function that all processes call before each case; if it
    returns True, validation stops and the result is None. Dropout is off, and BatchNorm
    uses its running averages. Cases with empty prediction and reference are left out;
    if there are no others, the result is 0. Several processes share the cases, and all
    return the mean.
    """
    predict = build_point_prediction(
        build_model(config),
        patch_shape=config.train.patch_shape,
        overlap=config.evaluate.overlap,
        window_batch=config.evaluate.window_batch,
    )
    indices = [cohort.ids.index(case) for case in cohort.split.validation]

    def validate(
        variables: dict[str, Any], giving_up: Callable[[], bool]
    ) -> float | None:
        """Returns the mean Dice of these weights; None if validation was stopped."""
        variables = devices.replicate(variables, own=True)
        scores = np.full(len(indices), np.nan)
        for first in range(0, len(indices), runtime.process_count()):
            if giving_up():
                return None
            place = first + runtime.process_index()
            if place < len(indices):
                mean = np.asarray(predict(variables, cohort.images[indices[place]]))
                scores[place] = dice(mean >= 0.5, cohort.labels[indices[place]] > 0)
        of_process = np.arange(len(indices)) % runtime.process_count()
        gathered = np.array(runtime.all_gather(scores.tolist()))
        scores = gathered[of_process, np.arange(len(indices))]
        defined = scores[~np.isnan(scores)]
        return float(np.mean(defined)) if len(defined) else 0.0

    return validate
