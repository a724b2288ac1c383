"""Functions that apply a trained run to a prepared image: N samples, or one pass."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from unc_jax import runtime
from unc_jax.config import Config, differences, flat_config, upgrade
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.keys import key_for
from unc_jax.segmentation import devices
from unc_jax.segmentation.checkpoint import Checkpoints, Restored, folder_of
from unc_jax.segmentation.models import build_model, compute_dtype
from unc_jax.segmentation.sliding import (
    build_features,
    build_point_prediction,
    plane_window,
)
from unc_jax.segmentation.train import empty_state, variables_of
from unc_jax.segmentation.unet import UNet3D
from unc_jax.uncertainty.ensembles import (
    FLIPS,
    PointPrediction,
    build_ensemble,
    build_flips,
)
from unc_jax.uncertainty.prediction import Prediction
from unc_jax.uncertainty.sampling import (
    build_monte_carlo_of_networks,
    default_chunk,
    volume_key,
)

Predict = Callable[[np.ndarray, int | None], Prediction]

# Fields of the network that affect its samples but not its parameters.
_OF_SAMPLES = ("model.dropout_rate", "model.dropout_kind", "model.compute_dtype")


class Predictor(NamedTuple):
    """Functions that apply a trained run to a prepared image float32 (x, y, z).

    Attributes:
      predict: (image, case number) -> prediction of `samples` samples; the number is
        None for a scan outside the run's cohort.
      single: image -> foreground probabilities of one pass without dropout; for an
        ensemble, of its first member.
      features: image -> pooled bottleneck (c,), see `build_features`; for an ensemble,
        of its first member.
      steps, digests: step and SHA-256 of the checkpoint of each network.
      model: the network's module; networks: variables of each network.
    """

    predict: Predict
    single: Callable[[np.ndarray], np.ndarray]
    features: Callable[[np.ndarray], np.ndarray]
    samples: int
    steps: tuple[int, ...]
    digests: tuple[str, ...]
    model: Any
    networks: list[dict[str, Any]]


def window_shape(config: Config, volume_shape: Sequence[int]) -> tuple[int, int, int]:
    """Returns the shape (x, y, z) of windows in volumes of this shape, in voxels."""
    return config.evaluate.window_shape or plane_window(
        volume_shape, config.train.patch_shape, config.model.depth
    )


def chunk_of(config: Config, window: Sequence[int]) -> int:
    """Returns the samples per pass for windows of this shape, voxels (x, y, z)."""
    evaluation, model = config.evaluate, config.model
    return evaluation.chunk or default_chunk(
        evaluation.samples,
        values=evaluation.window_batch * math.prod(window) * model.features,
        bytes_each=jnp.dtype(compute_dtype(model.compute_dtype)).itemsize,
        memory=devices.memory_bytes(),
    )


def load_predictor(
    config: Config,
    workdir: Path,
    volume_shape: Sequence[int],
    *,
    steps: Sequence[int] = (),
) -> Predictor:
    """Loads the network of a run, or of each member of an ensemble; only reads.

    volume_shape: voxels (x, y, z) of all images. steps: step of the checkpoint of each
    network; () uses the best or latest, by evaluate.checkpoint.

    Raises InputError when a run has no checkpoint, only damaged ones, or another
    network than the config.
    """
    evaluation = config.evaluate
    model = build_model(config)
    window = window_shape(config, volume_shape)
    grid = {
        "patch_shape": window,
        "overlap": evaluation.overlap,
        "window_batch": evaluation.window_batch,
    }
    point_prediction = build_point_prediction(model, **grid)
    pooled = build_features(model, **grid)
    folders = _folders(config, workdir)
    restored = [
        _restore(config, model, folder, step)
        for folder, step in zip(folders, steps or [None] * len(folders), strict=True)
    ]
    networks = [
        devices.replicate(variables_of(one.state), own=True) for one in restored
    ]
    if evaluation.source == "ensemble":
        predict, samples = _by_ensemble(point_prediction, networks), len(networks)
    elif evaluation.source == "flips":
        predict, samples = _by_flips(point_prediction, networks[0]), len(FLIPS)
    else:
        predict = _by_dropout(config, model, networks, window)
        samples = evaluation.samples * len(networks)

    def single(image: np.ndarray) -> np.ndarray:
        return np.asarray(point_prediction(networks[0], image))

    def features(image: np.ndarray) -> np.ndarray:
        return pooled(networks[0], image)

    digests = tuple(one.sha256 for one in restored)
    steps = tuple(one.step for one in restored)
    return Predictor(
        predict, single, features, samples, steps, digests, model, networks
    )


def chosen_checkpoints(config: Config, workdir: Path) -> dict[str, list]:
    """Returns "steps" and "checkpoints" (SHA-256) of what would be loaded; only reads.

    Both are empty if a checkpoint is missing.
    """
    found = []
    for folder in _folders(config, workdir):
        where = folder_of(folder, config.train.checkpoints)
        # One answer for all processes: another one may be creating the folder now.
        if runtime.broadcast(where.is_dir()):
            with Checkpoints(where, read_only=True) as checkpoints:
                best = config.evaluate.checkpoint == "best"
                found.append(checkpoints.chosen(best=best))
    if not found or None in found:
        return {"steps": [], "checkpoints": []}
    steps, digests = zip(*found, strict=True)
    return {"steps": list(steps), "checkpoints": list(digests)}


def _folders(config: Config, workdir: Path) -> list[Path]:
    """Returns the run folder of every network."""
    return [*map(files.expanded, config.evaluate.members)] or [workdir]


def _by_ensemble(
    point_prediction: PointPrediction, networks: list[dict[str, Any]]
) -> Predict:
    of_members = build_ensemble(point_prediction)
    return lambda image, number: of_members(networks, image)


def _by_flips(point_prediction: PointPrediction, variables: dict[str, Any]) -> Predict:
    of_flips = build_flips(point_prediction)
    return lambda image, number: of_flips(variables, image)


def _by_dropout(
    config: Config,
    model: UNet3D,
    networks: list[dict[str, Any]],
    window: tuple[int, ...],
) -> Predict:
    evaluation = config.evaluate
    monte_carlo = build_monte_carlo_of_networks(
        model,
        samples=evaluation.samples,
        patch_shape=window,
        overlap=evaluation.overlap,
        mask_scope=evaluation.mask_scope,
        window_batch=evaluation.window_batch,
        chunk=chunk_of(config, window),
    )
    key = key_for(config.seed, "monte_carlo")
    keys = [key]
    if config.evaluate.members:
        keys = [jax.random.fold_in(key, member) for member in range(len(networks))]

    def predict(image: np.ndarray, number: int | None) -> Prediction:
        own = [volume_key(one, number, evaluation.mask_scope) for one in keys]
        return monte_carlo(networks, image, own)

    return predict


def _restore(config: Config, model: UNet3D, folder: Path, step: int | None) -> Restored:
    """Restores the checkpoint of a step; for None the best or latest of the run."""
    where = folder_of(folder, config.train.checkpoints)
    missing = f"{folder} holds no trained model; run --stage train first"
    if not where.is_dir():
        raise InputError(missing)
    with Checkpoints(where, read_only=True) as checkpoints:
        _check_network(config, checkpoints.started_under(), folder)
        like = devices.replicate(empty_state(config, model))
        best = config.evaluate.checkpoint == "best"
        restored = checkpoints.restore(like, step=step, best=best)
    if restored is None:
        raise InputError(missing)
    return restored


def _check_network(config: Config, trained: dict[str, Any] | None, folder: Path):
    """Raises InputError if the config has another network or fold than the training.

    A network of another fold was trained on test cases of this fold.
    """

    def network(fields: dict[str, Any]) -> dict[str, Any]:
        return {
            name: value
            for name, value in fields.items()
            if name.startswith(("model.", "data.fold")) and name not in _OF_SAMPLES
        }

    changed = trained and differences(
        network(upgrade(trained)), network(flat_config(config))
    )
    if changed:
        raise InputError(
            f"{folder} holds another network ({'; '.join(changed)}); set these back"
        )
