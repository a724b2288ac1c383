"""3D U-Net whose dropout can stay on at inference (Monte Carlo dropout)."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from unc_jax.errors import InputError
from unc_jax.segmentation.convolution.upsampled import convolve

DROPOUT_KINDS = ("spatial", "element", "fixed")
DROPOUT_PLACEMENTS = ("all", "bottleneck")
NORMS = ("batch", "group", "none")
GROUP = 8  # channels of a group

# Name under which rematerialisation finds the results of convolutions.
CONVOLUTION = "convolution"

# Running averages over about the last 50 updates: settled even in short trainings.
_BATCH_NORM_MOMENTUM = 0.98

# From activations (b, z, x, y, c) to what dropout leaves of them.
Drop = Callable[[Array], Array]


class ConvBlock(nn.Module):
    """Convolution 3x3x3 -> ReLU -> dropout -> normalisation, on (b, z, x, y, c)."""

    features: int
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, *inputs: Array, train: bool, drop: Drop | None) -> Array:
        """Returns the block's output for one input, or for the two of the way up.

        These are a volume of half the size, which is upsampled, and the skip. Dropout
        and normalisation are two separate switches.
        """
        shape = (3, 3, 3, sum(x.shape[-1] for x in inputs), self.features)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        inputs = tuple(x.astype(self.dtype) for x in inputs)
        x = convolve(inputs, kernel.astype(self.dtype))
        x = checkpoint_name(x, CONVOLUTION)
        x = nn.relu(x + bias.astype(self.dtype).reshape(1, 1, 1, 1, -1))
        if drop is not None:
            x = drop(x)
        if self.norm == "batch":
            x = nn.BatchNorm(
                use_running_average=not train,
                momentum=_BATCH_NORM_MOMENTUM,
                dtype=self.dtype,
                name="normalise",
            )(x)
        elif self.norm == "group":
            groups = nn.GroupNorm(num_groups=None, group_size=GROUP, name="normalise")
            x = groups(x).astype(self.dtype)
        return x


class UNet3D(nn.Module):
    """3D U-Net of DeepNeuro (Beers et al., 2018) with Monte Carlo dropout.

    Level l has convolutions of `features * 2**l` and twice as many channels, max-pool 2
    on the way down, nearest upsampling and concatenation on the way up, where level l
    ends with `features * 2**l` channels. With features 32 and depth 4:
    32-64 | 64-128 | 128-256 | 256-512, 14,605,377 trainable parameters.

    Attributes:
      features: channels of the first convolution.
      depth: number of levels.
      norm: "batch", "group" (8 channels a group) or "none", after the dropout.
      dropout_kind: "spatial" drops whole channels, "element" single activations,
        "fixed" a fixed number of channels.
      dropout_placement: "all" 3x3x3 convolutions, or the two of the "bottleneck".
      dropout_rate: probability of a drop; survivors are scaled by 1 / (1 - rate).
      dtype: of the computation; parameters, logits and reductions are float32.
    """

    features: int = 32
    depth: int = 4
    norm: str = "batch"
    dropout_kind: str = "spatial"
    dropout_placement: str = "all"
    dropout_rate: float = 0.1
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Array, *, train: bool, dropout: bool) -> Array:
        """Returns foreground logits (b, x, y, z) float32 of images (b, x, y, z, 1).

        Args:
          x: z-scored images; each spatial axis divisible by 2**(depth - 1).
          train: BatchNorm takes batch statistics and updates its running averages
            (apply with mutable=["batch_stats"]); otherwise it uses the averages.
          dropout: activations are dropped (needs rngs={"dropout": key}). Training is
            (True, True), Monte Carlo sampling (False, True), a plain pass neither.

        Raises:
          InputError: a spatial axis is not divisible by 2**(depth - 1).
        """
        check_divisible(x.shape[1:4], self.depth)
        channels = block_channels(self.features, self.depth)
        drops = self._drops(channels, x.shape[0]) if dropout else {}

        def block(name: str, *inputs: Array) -> Array:
            layer = ConvBlock(
                channels[name], self.norm, self.dtype, name=f"blocks_{name}"
            )
            return layer(*inputs, train=train, drop=drops.get(name))

        x = x.transpose(0, 3, 1, 2, 4)  # z first: conv3d is fastest so
        skips, bottom = [], self.depth - 1
        for level in range(bottom):  # the way down
            x = block(f"down{level}_conv0", x)
            x = block(f"down{level}_conv1", x)
            skips.append(x)
            x = max_pool(x)
        x = block(f"down{bottom}_conv0", x)  # the bottleneck
        x = block(f"down{bottom}_conv1", x)
        # (b, c), for those who ask for it: apply with mutable=["intermediates"].
        self.sow("intermediates", "pooled", jnp.mean(x, (1, 2, 3), jnp.float32))
        for level in reversed(range(bottom)):  # the way up
            x = block(f"up{level}_conv0", x, skips[level])
            x = block(f"up{level}_conv1", x)
        head = nn.Dense(1, dtype=jnp.float32, name="head")
        return head(x.astype(jnp.float32))[..., 0].transpose(0, 2, 3, 1)

    def _drops(self, channels: dict[str, int], batch: int) -> dict[str, Drop]:
        """Returns the dropout of every block that has one, drawn from one key."""
        if self.dropout_rate == 0:
            return {}
        if self.dropout_placement == "bottleneck":
            bottom = f"down{self.depth - 1}_"
            channels = {n: c for n, c in channels.items() if n.startswith(bottom)}
        key, rate = self.make_rng("dropout"), self.dropout_rate
        if self.dropout_kind == "element":
            keys = jax.random.split(key, len(channels))
            drops = [functools.partial(drop_elements, key=k, rate=rate) for k in keys]
        else:
            factors = channel_factors(
                key,
                tuple(channels.values()),
                kind=self.dropout_kind,
                rate=rate,
                items=batch,
            )
            drops = [functools.partial(scale_channels, factors=f) for f in factors]
        return dict(zip(channels, drops, strict=True))


def block_channels(features: int, depth: int) -> dict[str, int]:
    """Returns the output channels of every block, in the order of computation."""
    channels = {}
    for level in range(depth):
        width = features << level
        channels |= {f"down{level}_conv0": width, f"down{level}_conv1": 2 * width}
    for level in reversed(range(depth - 1)):
        width = features << level
        channels |= {f"up{level}_conv0": 2 * width, f"up{level}_conv1": width}
    return channels


def channel_factors(
    key: Array, channels: Sequence[int], *, kind: str, rate: float, items: int
) -> list[Array]:
    """Draws the factor of each channel of each convolution: 0 where it is dropped.

    "spatial": each channel by itself with probability `rate`, the others times
    1 / (1 - rate) (Tompson et al., 2015). "fixed": the same number of channels every
    time, rate * c rounded, at random, the others times c / kept; the capacity of the
    network then does not vary from sample to sample.

    The numbers of all convolutions are drawn together: one draw per convolution took a
    quarter of the time in which a network compiles on a CPU.

    Args:
      channels: c of each convolution.
      items: of a batch, each with a draw of its own.

    Returns:
      Per convolution (items, c), float32.
    """
    numbers = jax.random.uniform(key, (items, sum(channels)))
    split = jnp.split(numbers, np.cumsum(channels)[:-1], axis=1)
    factors = _fixed_factors if kind == "fixed" else _bernoulli_factors
    return [factors(part, rate) for part in split]


def _bernoulli_factors(numbers: Array, rate: float) -> Array:
    return jnp.where(numbers < 1 - rate, _survivor_factor(rate), 0.0)


def _survivor_factor(rate: float) -> float:
    return 1 / (1 - rate) if rate < 1 else 0.0


def _fixed_factors(numbers: Array, rate: float) -> Array:
    channels = numbers.shape[-1]
    kept = channels - round(rate * channels)
    rank = jnp.argsort(jnp.argsort(numbers))
    return jnp.where(rank < kept, channels / max(kept, 1), 0.0)


def scale_channels(x: Array, factors: Array) -> Array:
    """Multiplies activations (b, z, x, y, c) by factors (b, c)."""
    return x * factors.astype(x.dtype)[:, None, None, None]


def drop_elements(x: Array, key: Array, *, rate: float) -> Array:
    """Drops each activation (b, z, x, y, c) by itself, scales the others by
    1 / (1 - rate) (Srivastava et al., 2014)."""
    kept = jax.random.uniform(key, x.shape) < 1 - rate
    # A choice, so that the gradient keeps a byte of each activation and not a number.
    return jnp.where(kept, x * jnp.asarray(_survivor_factor(rate), x.dtype), 0)


def check_divisible(patch_shape: tuple[int, ...], depth: int) -> None:
    """Raises InputError unless every axis can be halved depth - 1 times."""
    factor = 2 ** (depth - 1)
    if any(size % factor or size < factor for size in patch_shape):
        raise InputError(
            f"patch {tuple(patch_shape)} does not fit a U-Net of depth {depth}: every "
            f"axis must be a multiple of {factor}; change the patch or model.depth"
        )


def max_pool(x: Array) -> Array:
    """Returns the largest of 2 x 2 x 2 neighbours, (b, z, x, y, c).

    Pair by pair. The gradient of a maximum over a reshaped axis looks for the elements
    that equal it, and where XLA computes those elements anew, rounded otherwise, it
    finds none: in small networks whole gradients were lost.
    """
    for axis in (1, 2, 3):
        pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        even, odd = (
            lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1)
        )
        x = jnp.maximum(even, odd)
    return x
