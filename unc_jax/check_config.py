"""Checks of the values in a run's configuration: one readable error per field."""

import math
from collections.abc import Iterator
from numbers import Real
from typing import Any

from unc_jax.config import Config, check_fields, flat_config
from unc_jax.data.label_names import LARGEST_TRAINED
from unc_jax.errors import InputError, counted
from unc_jax.segmentation.feed import RESIDENCES
from unc_jax.segmentation.losses import LOSSES
from unc_jax.segmentation.models import MODELS
from unc_jax.segmentation.train import SCHEDULES
from unc_jax.segmentation.unet import (
    DROPOUT_KINDS,
    DROPOUT_PLACEMENTS,
    GROUP,
    NORMS,
    check_divisible,
)
from unc_jax.uncertainty.ensembles import SOURCES
from unc_jax.uncertainty.sampling import MASK_SCOPES

_CHOICES = {
    "data.target": ("liver", "tumor"),
    "data.normalisation": ("population", "case"),
    "model.name": MODELS,
    "model.norm": NORMS,
    "model.dropout_kind": DROPOUT_KINDS,
    "model.dropout_placement": DROPOUT_PLACEMENTS,
    "model.compute_dtype": ("auto", "float32", "bfloat16"),
    "loss.name": LOSSES,
    "train.schedule": SCHEDULES,
    "train.residence": RESIDENCES,
    "evaluate.source": SOURCES,
    "evaluate.mask_scope": MASK_SCOPES,
    "evaluate.checkpoint": ("best", "latest"),
}
_AT_LEAST = {
    "seed": 0,
    "data.phantom_cases": 3,
    "data.phantom_seed": 0,
    "data.split_seed": 0,
    "data.folds": 2,
    "model.features": 1,
    "model.depth": 2,
    "train.steps": 1,
    "train.batch": 1,
    "train.steps_per_call": 1,
    "train.validate_every_steps": 1,
    "train.checkpoint_every_steps": 1,
    "train.learning_rate": 0,
    "train.clip_norm": 0,
    "evaluate.samples": 2,
    "evaluate.window_batch": 1,
    "evaluate.chunk": 0,
    "evaluate.bootstrap": 100,
}
_SEEDS = ("seed", "data.phantom_seed", "data.split_seed")
_LARGEST_SEED = 2**32 - 1
_LABELS = ("data.liver_labels", "data.tumor_labels")
# Tuples of numbers. data.shape may also be "auto".
_NUMBERS = ("data.window_hu", "data.split_shares", "data.phantom_size", *_LABELS)
_NUMBERS += ("loss.wcc_weights", "train.patch_shape", "train.flip_axes")
_NUMBERS += ("evaluate.overlap", "evaluate.window_shape")
_SMALLEST_PHANTOM = 16  # voxels along each axis
_FRACTIONS = ("model.dropout_rate", "train.average_decay")  # in [0, 1)


def check_config(config: Config) -> None:
    """Raises one InputError that names every invalid field of `config`."""
    check_fields(config)
    errors = [*_no_numbers(config)]
    # Later checks divide by fields that the first has found to be positive.
    errors = errors or [*_wrong_values(config)]
    checks = (_wrong_data, _wrong_model, _wrong_shapes)
    errors = errors or [error for check in checks for error in check(config)]
    if errors:
        raise InputError("config: " + "; ".join(errors))


def _value(config: Config, path: str):
    for name in path.split("."):
        config = config[name]
    return config


def _no_numbers(config: Config) -> Iterator[str]:
    """Yields the fields that hold NaN, an infinity, or text in place of numbers."""
    for path, value in flat_config(config).items():
        leaves = [*_leaves(value)]
        numbers = [one for one in leaves if isinstance(one, Real)]
        parts = leaves if path == "loss.wcc_weights" else value  # others are flat
        if path in _NUMBERS and not all(isinstance(one, Real) for one in parts):
            yield f"{path} is {value}, must hold numbers"
        elif not all(map(math.isfinite, numbers)):
            yield f"{path} is {value}, must be finite"


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _wrong_values(config: Config) -> Iterator[str]:
    """Yields the errors of single fields that the tables above describe."""
    for path, choices in _CHOICES.items():
        if (value := _value(config, path)) not in choices:
            yield f"{path} is {value!r}, choose from {', '.join(choices)}"
    for path, least in _AT_LEAST.items():
        if (value := _value(config, path)) < least:
            yield f"{path} is {value}, must be at least {least}"
    for path in _SEEDS:
        if (value := _value(config, path)) > _LARGEST_SEED:
            yield f"{path} is {value}, must be at most {_LARGEST_SEED}"
    for path in _LABELS:
        labels = _value(config, path)
        if not all(isinstance(n, int) and 1 <= n <= LARGEST_TRAINED for n in labels):
            yield (
                f"{path} is {labels}, must be whole numbers from 1 to {LARGEST_TRAINED}"
            )
    for path in _FRACTIONS:
        if not 0 <= (value := _value(config, path)) < 1:
            yield f"{path} is {value}, must lie in [0, 1)"
    if not 0 <= (value := config.train.foreground_fraction) <= 1:
        yield f"train.foreground_fraction is {value}, must lie in [0, 1]"


def _wrong_data(config: Config) -> Iterator[str]:
    """Yields the errors of the split, the window of intensities and the phantoms."""
    shares = config.data.split_shares
    if len(shares) != 3 or not all(isinstance(n, int) and n > 0 for n in shares):
        yield f"data.split_shares is {shares}, must be three whole numbers above 0"
    fold, folds = config.data.fold, config.data.folds
    if not -1 <= fold < folds:
        yield f"data.fold is {fold}, must be one of 0 to {folds - 1}, or -1 for no fold"
    if fold >= 0 and config.data.split_file:
        yield (
            f"data.fold is {fold} and data.split_file {config.data.split_file!r}: both "
            "define a split, leave out one of them"
        )
    window = config.data.window_hu
    if window and not (len(window) == 2 and window[0] < window[1]):
        yield f"data.window_hu is {window}, must be (low, high) or ()"
    size = config.data.phantom_size
    if not _is_shape(size) or min(size) < _SMALLEST_PHANTOM:
        yield (
            f"data.phantom_size is {size}, must be three numbers of voxels, each at "
            f"least {_SMALLEST_PHANTOM}"
        )


def _wrong_model(config: Config) -> Iterator[str]:
    """Yields the errors of loss, network, training and the source of the samples."""
    weights = config.loss.wcc_weights
    rows = [row for row in weights if isinstance(row, tuple)]
    square = len(weights) == len(rows) == 2 and all(
        len(row) == 2 and all(isinstance(one, Real) for one in row) for row in rows
    )
    if not square or min(_leaves(weights)) < 0 or not max(_leaves(weights)):
        yield (
            f"loss.wcc_weights is {weights}, must be a 2x2 table of numbers >= 0, not "
            "all 0"
        )
    if config.model.norm == "group" and config.model.features % GROUP:
        yield (
            f"model.features is {config.model.features}, must be a multiple of {GROUP} "
            'with model.norm "group"'
        )
    axes = config.train.flip_axes
    known = {axis for axis in axes if isinstance(axis, int)} & {0, 1, 2}
    if len(known) != len(axes):
        yield f"train.flip_axes is {axes}, must be some of 0, 1, 2, each once"
    folders = config.evaluate.members
    if not all(isinstance(folder, str) for folder in folders):
        yield f"evaluate.members is {folders}, must hold run folders"
    source, members = config.evaluate.source, len(folders)
    fit = {"dropout": members != 1, "flips": members == 0, "ensemble": members >= 2}
    if not fit.get(source, True):
        yield (
            f"evaluate.members names {counted(members, 'run')}; evaluate.source "
            '"ensemble" needs two or more, "dropout" none or two or more, "flips" none'
        )
    train = config.train
    for name in ("steps", "validate_every_steps", "checkpoint_every_steps"):
        if train[name] % train.steps_per_call:
            yield (
                f"train.{name} is {train[name]}, must be a multiple of "
                f"train.steps_per_call ({train.steps_per_call})"
            )


def _wrong_shapes(config: Config) -> Iterator[str]:
    patch, shape = config.train.patch_shape, config.data.shape
    if not _is_shape(patch):
        yield f"train.patch_shape is {patch}, must be three numbers of voxels"
        return
    try:
        check_divisible(patch, config.model.depth)
    except InputError as error:
        yield f"train.patch_shape: {error}"
    if shape == "auto":
        if config.data.target != "tumor":
            yield "data.shape 'auto' is the mean size after cropping: tumor only"
    elif not _is_shape(shape):
        yield f"data.shape is {shape!r}, must be three numbers of voxels, or 'auto'"
    elif any(p > s for p, s in zip(patch, shape, strict=True)):
        yield f"train.patch_shape {patch} is larger than data.shape {shape}"
    yield from _wrong_windows(config, patch, shape)


def _wrong_windows(config: Config, patch: tuple, shape: Any) -> Iterator[str]:
    """Yields the errors of the evaluation's windows; `shape` may be "auto"."""
    overlap = config.evaluate.overlap
    window = config.evaluate.window_shape or patch  # never smaller than a patch
    if len(overlap) != 3 or not all(0 <= o < 1 for o in overlap):
        yield f"evaluate.overlap is {overlap}, must be three fractions in [0, 1)"
        return
    if not _is_shape(window):
        yield f"evaluate.window_shape is {window}, must be () or three sizes"
        return
    if config.evaluate.window_shape:
        try:
            check_divisible(window, config.model.depth)
        except InputError as error:
            yield f"evaluate.window_shape: {error}"
        if _is_shape(shape) and any(w > s for w, s in zip(window, shape, strict=True)):
            yield f"evaluate.window_shape {window} is larger than data.shape {shape}"


def _is_shape(value) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 3
        and all(isinstance(size, int) and size >= 1 for size in value)
    )
