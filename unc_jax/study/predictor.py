"""A trained run as functions of a prepared image: Monte Carlo, and without dropout."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from unc_jax.errors import InputError
from unc_jax.fields import Config
from unc_jax.keys import key_for
from unc_jax.segmentation.checkpoint import Checkpoints
from unc_jax.segmentation.sliding import build_point_prediction
from unc_jax.segmentation.train import build_model, create_state, variables_of
from unc_jax.uncertainty.sampling import Prediction, build_monte_carlo, volume_key


class Predictor(NamedTuple):
    """Of images float32 (x, y, z).

    predict(image, case number): the Monte Carlo prediction; single(image): foreground
    probabilities of one pass without dropout; step: of the parameters.
    """

    predict: Callable[[np.ndarray, int], Prediction]
    single: Callable[[np.ndarray], np.ndarray]
    step: int


def load_predictor(config: Config, workdir: Path) -> Predictor:
    """The network of a run, as `config.evaluate` says: best or latest checkpoint.

    Raises InputError when the run holds no trained model, or a broken one.
    """
    evaluation = config.evaluate
    model = build_model(config)
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        like = create_state(config, model)
        best = evaluation.checkpoint == "best"
        restored = (checkpoints.restore_best if best else checkpoints.restore_latest)(
            like
        )
    if restored is None:
        raise InputError(f"{workdir} holds no trained model; run --stage train first")
    on_cpu = jax.default_backend() == "cpu"
    monte_carlo = build_monte_carlo(
        model,
        samples=evaluation.samples,
        patch_shape=config.train.patch_shape,
        overlap=evaluation.overlap,
        mask_scope=evaluation.mask_scope,
        window_batch=evaluation.window_batch,
        chunk=evaluation.chunk or (1 if on_cpu else evaluation.samples),
    )
    point_prediction = build_point_prediction(
        model,
        patch_shape=config.train.patch_shape,
        overlap=evaluation.overlap,
        window_batch=evaluation.window_batch,
    )
    variables = variables_of(restored.state)
    key = key_for(config.seed, "monte_carlo")

    def predict(image: np.ndarray, number: int) -> Prediction:
        own = volume_key(key, number, evaluation.mask_scope)
        return monte_carlo(variables, image, own)

    def single(image: np.ndarray) -> np.ndarray:
        return np.asarray(point_prediction(variables, image))

    return Predictor(predict, single, restored.step)
