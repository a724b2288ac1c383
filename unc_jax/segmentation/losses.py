"""Loss functions of the paper, and LOSSES, the table of those a config can name."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array

from unc_jax.config import Config

# Probabilities are clipped to this distance from 0 and 1 before the logarithm, as in
# Keras; float32 distinguishes 1 - 1e-7 from 1.
_TINY = 1e-7


def soft_dice_loss(
    probabilities: Array, labels: Array, *, smooth: float = 1.0
) -> Array:
    """Returns 1 - (2 sum(t p) + s) / (sum t + sum p + s), summed over the batch.

    Milletari et al., 2016, in the smoothed form of DeepNeuro (Beers et al., 2018).

    Args:
      probabilities: foreground probabilities (b, x, y, z).
      labels: 0/1, same shape, any dtype.
      smooth: s, in voxels. It keeps gradients finite; the loss of two empty masks is 0.

    Returns:
      Scalar in [0, 1).
    """
    truth = labels.astype(probabilities.dtype)
    overlap = jnp.sum(truth * probabilities)
    total = jnp.sum(truth) + jnp.sum(probabilities)
    return 1.0 - (2.0 * overlap + smooth) / (total + smooth)


def weighted_categorical_crossentropy(
    probabilities: Array, labels: Array, *, weights: Sequence[Sequence[float]]
) -> Array:
    """Returns the mean over voxels of W[true, predicted] * -log p(true class).

    Args:
      probabilities: foreground probabilities (b, x, y, z), clipped to 1e-7 ... 1 - 1e-7
        so that the loss is finite.
      labels: 0/1, same shape.
      weights: 2x2, row = true class, column = class predicted by p >= 0.5. Rows of
        equal entries are ordinary class weights; unequal entries weight the confusion
        matrix (DeepNeuro). No gradient flows through the predicted class.

    Returns:
      Scalar >= 0.
    """
    p = jnp.clip(probabilities, _TINY, 1.0 - _TINY)
    logarithms = jnp.where(labels > 0, jnp.log(p), jnp.log1p(-p))
    return _weighted_mean(-logarithms, probabilities >= 0.5, labels, weights)


def soft_dice_from_logits(logits: Array, labels: Array) -> Array:
    """Returns `soft_dice_loss` of sigmoid(logits)."""
    return soft_dice_loss(jax.nn.sigmoid(logits), labels)


def weighted_crossentropy_from_logits(
    logits: Array, labels: Array, *, weights: Sequence[Sequence[float]]
) -> Array:
    """Returns `weighted_categorical_crossentropy` of sigmoid(logits), unclipped."""
    signed = jnp.where(labels > 0, logits, -logits)
    return _weighted_mean(-jax.nn.log_sigmoid(signed), logits >= 0, labels, weights)


def _weighted_mean(
    losses: Array, predicted: Array, labels: Array, weights: Sequence[Sequence[float]]
) -> Array:
    (w00, w01), (w10, w11) = weights
    if_foreground = jnp.where(predicted, w11, w10)
    if_background = jnp.where(predicted, w01, w00)
    factor = jnp.where(labels > 0, if_foreground, if_background).astype(losses.dtype)
    return jnp.mean(jax.lax.stop_gradient(factor) * losses)


# Keys are values of config.loss.name. A loss is a function (logits (b, x, y, z)
# float32, labels 0/1 of the same shape, config.loss) -> scalar. To add one, write the
# function and add an entry here; fields that it needs go into configs/base.py.
Loss = Callable[[Array, Array, Config], Array]
LOSSES: dict[str, Loss] = {
    "dice": lambda logits, labels, loss: soft_dice_from_logits(logits, labels),
    "wcc": lambda logits, labels, loss: weighted_crossentropy_from_logits(
        logits, labels, weights=loss.wcc_weights
    ),
}
