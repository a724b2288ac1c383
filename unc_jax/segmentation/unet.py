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

# Running averages over about the last 50 updates: accurate even in short trainings.
_BATCH_NORM_MOMENTUM = 0.98

# Applies dropout to activations (b, z, x, y, c).
Drop = Callable[[Array], Array]


class ConvBlock(nn.Module):
    """Convolution 3x3x3 -> ReLU -> dropout -> normalisation, on (b, z, x, y, c)."""

    features: int
    norm: str
    dtype: Any

    @nn.compact
    def __call__(self, *inputs: Array, train: bool, drop: Drop | None) -> Array:
        """Returns the block's output for one input, or for the two of the decoder.

        Those two are a volume of half the size, which is upsampled, and the skip
        connection. train: batch statistics. drop: None for no dropout.
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

    In the encoder level l has two convolutions, of `features * 2**l` and of twice as
    many channels, followed by max-pooling by 2. The decoder has nearest upsampling and
    concatenation, and its level l ends with `features * 2**l` channels. With features
    32 and depth 4: 32-64 | 64-128 | 128-256 | 256-512, 14,605,377 trainable parameters.

    Attributes:
      features: channels of the first convolution.
      depth: number of levels.
      norm: "batch", "group" (8 channels per group) or "none", after the dropout.
      dropout_kind: "spatial" drops whole channels, "element" single activations,
        "fixed" a fixed number of channels.
      dropout_placement: after "all" 3x3x3 convolutions, or only after the two of the
        "bottleneck".
      dropout_rate: probability of a drop; what is kept is scaled by 1 / (1 - rate).
      dtype: type of the computation; parameters, logits and reductions are float32.
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
          train: BatchNorm uses batch statistics and updates its running averages
            (apply with mutable=["batch_stats"]); otherwise it uses the averages.
          dropout: activations are dropped (needs rngs={"dropout": key}). (train,
            dropout) is (True, True) in training, (False, True) in Monte Carlo sampling
            and (False, False) for a deterministic pass.

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

        x = x.transpose(0, 3, 1, 2, 4)  # conv3d is fastest with z first
        skips, bottom = [], self.depth - 1
        for level in range(bottom):  # encoder
            x = block(f"down{level}_conv0", x)
            x = block(f"down{level}_conv1", x)
            skips.append(x)
            x = max_pool(x)
        x = block(f"down{bottom}_conv0", x)  # bottleneck
        x = block(f"down{bottom}_conv1", x)
        # Features (b, c); apply with mutable=["intermediates"] to get them.
        self.sow("intermediates", "pooled", jnp.mean(x, (1, 2, 3), jnp.float32))
        for level in reversed(range(bottom)):  # decoder
            x = block(f"up{level}_conv0", x, skips[level])
            x = block(f"up{level}_conv1", x)
        head = nn.Dense(1, dtype=jnp.float32, name="head")
        return head(x.astype(jnp.float32))[..., 0].transpose(0, 2, 3, 1)

    def _drops(self, channels: dict[str, int], batch: int) -> dict[str, Drop]:
        """Returns the dropout function of every block that has one, from one key."""
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

    "spatial" drops each channel independently with probability `rate` and scales the
    others by 1 / (1 - rate) (Tompson et al., 2015). "fixed" always drops the same
    number of channels, rate * c rounded, chosen at random, and scales the others by
    c / kept; the capacity of the network then does not vary between samples.

    The random numbers of all convolutions are drawn together, because one draw per
    convolution took a quarter of the compile time of a network on a CPU.

    Args:
      channels: c of each convolution.
      items: size of the batch; each item has its own draw.

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
    """Drops each activation independently (Srivastava et al., 2014).

    x: (b, z, x, y, c); activations that are kept are scaled by 1 / (1 - rate).
    """
    kept = jax.random.uniform(key, x.shape) < 1 - rate
    # `where` instead of a product: the gradient stores one byte per activation.
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
    """Returns the maximum over blocks of 2 x 2 x 2 voxels, (b, z, x, y, c).

    Computed as maxima of pairs. The gradient of a maximum over a reshaped axis goes to
    the elements that equal it; if XLA recomputes those elements with another rounding,
    none is equal, and small networks lost whole gradients.
    """
    for axis in (1, 2, 3):
        pairs = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
        even, odd = (
            lax.index_in_dim(pairs, i, axis + 1, keepdims=False) for i in (0, 1)
        )
        x = jnp.maximum(even, odd)
    return x
