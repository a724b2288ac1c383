"""The training state and the pure function of one training step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from unc_jax.config import Config
from unc_jax.keys import key_for
from unc_jax.segmentation import devices
from unc_jax.segmentation.losses import LOSSES
from unc_jax.segmentation.unet import CONVOLUTION

SCHEDULES = ("constant", "cosine")
_KEEP_CONVOLUTIONS = jax.checkpoint_policies.save_only_these_names(CONVOLUTION)


class TrainState(NamedTuple):
    """State that changes from step to step.

    Attributes:
      step: number of completed updates.
      params, batch_stats: of the network; batch_stats is {} without BatchNorm.
      optimizer: optax state.
      average: exponential moving average of params; {} without train.average_decay.
    """

    step: Array
    params: Any
    batch_stats: Any
    optimizer: Any
    average: Any


def build_optimizer(train: Config) -> optax.GradientTransformation:
    """Builds NAdam (Dozat, 2016) with the schedule and clipping of `config.train`."""
    rate = train.learning_rate
    if train.schedule == "cosine":
        rate = optax.cosine_decay_schedule(rate, train.steps)
    optimizer = optax.nadam(rate)
    if train.clip_norm > 0:
        optimizer = optax.chain(optax.clip_by_global_norm(train.clip_norm), optimizer)
    return optimizer


def create_state(config: Config, model) -> TrainState:
    """Draws the weights of step 0 from the seed."""
    draw = jax.jit(_draw(config, model), compiler_options=devices.once_options())
    return _first_state(config, draw(key_for(config.seed, "init")))


def state_shapes(config: Config, model) -> TrainState:
    """Returns the shapes and types of `create_state`'s result, computing nothing."""
    key = key_for(config.seed, "init")
    return jax.eval_shape(lambda: _first_state(config, _draw(config, model)(key)))


def empty_state(config: Config, model) -> TrainState:
    """Returns zeros with the shapes and types of `create_state`'s result.

    Checkpoints are restored into it; drawing weights instead would take seconds to
    compile.
    """
    shapes = state_shapes(config, model)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _draw(config: Config, model) -> Callable[[Array], Any]:
    """Returns a function from a key to the network's drawn variables."""
    example = jnp.zeros((1, *config.train.patch_shape, 1))
    return lambda key: model.init(key, example, train=False, dropout=False)


def _first_state(config: Config, variables: Any) -> TrainState:
    params = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        batch_stats=variables.get("batch_stats", {}),
        optimizer=build_optimizer(config.train).init(params),
        average=jax.tree.map(jnp.copy, params) if config.train.average_decay else {},
    )


def variables_of(state: TrainState) -> dict[str, Any]:
    """Returns the variables of the network, with the averaged weights if there are."""
    variables = {"params": state.average or state.params}
    return (
        {**variables, "batch_stats": state.batch_stats}
        if state.batch_stats
        else variables
    )


def build_objective(config: Config, model) -> Callable:
    """Builds a pure (params, batch_stats, images, labels, key) -> (loss, batch_stats).

    Images and labels are patches (b, x, y, z); dropout, drawn from `key`, and batch
    statistics are on. With `train.rematerialise` only the convolutions' results are
    kept for the gradient: 325 MB instead of 1.8 GB for a patch of 128x128x16 at 32
    features.
    """
    loss_function = LOSSES[config.loss.name]

    def objective(params, batch_stats, images: Array, labels: Array, key: Array):
        """Returns the loss of a batch, and the running statistics after it."""
        variables = {"params": params}
        if batch_stats:
            variables["batch_stats"] = batch_stats
        logits, updated = model.apply(
            variables,
            images.astype(jnp.float32)[..., None],
            train=True,
            dropout=True,
            rngs={"dropout": key},
            mutable=["batch_stats"],
        )
        loss = loss_function(logits, labels, config.loss)
        return loss, updated.get("batch_stats", {})

    if config.train.rematerialise:
        return jax.checkpoint(objective, policy=_KEEP_CONVOLUTIONS)
    return objective


def build_train_step(config: Config, model) -> Callable:
    """Builds a pure function (state, (images, labels)) -> (state, loss).

    Images are (b, x, y, z) of any float type, labels 0/1 of the same shape. Dropout
    masks and flips are functions of (seed, step).
    """
    optimizer = build_optimizer(config.train)
    objective = build_objective(config, model)
    dropout_key = key_for(config.seed, "dropout")
    flip_key = key_for(config.seed, "flips")
    flip_axes, decay = tuple(config.train.flip_axes), config.train.average_decay

    def train_step(state: TrainState, batch: tuple[Array, Array]):
        """Returns the state after an update, and its loss."""
        images, labels = (
            flip(jax.random.fold_in(flip_key, state.step), array, flip_axes)
            for array in batch
        )
        key = jax.random.fold_in(dropout_key, state.step)
        (loss, batch_stats), gradient = jax.value_and_grad(objective, has_aux=True)(
            state.params, state.batch_stats, images, labels, key
        )
        updates, moments = optimizer.update(gradient, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        average = state.average
        if decay:
            average = optax.incremental_update(params, average, 1 - decay)
        return TrainState(state.step + 1, params, batch_stats, moments, average), loss

    return train_step


def flip(key: Array, patches: Array, axes: tuple[int, ...]) -> Array:
    """Mirrors each patch (b, x, y, z) along each of `axes` with probability 1/2."""
    for axis in axes:
        coin = jax.random.bernoulli(
            jax.random.fold_in(key, axis), shape=(patches.shape[0], 1, 1, 1)
        )
        patches = jnp.where(coin, jnp.flip(patches, axis + 1), patches)
    return patches
