"""3D U-Net whose dropout can stay on at inference (Monte Carlo dropout)."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.ad_checkpoint import checkpoint_name

from unc_jax.errors import InputError
from unc_jax.segmentation.cpu_conv.upsampled import convolve
from unc_jax.segmentation.dropout import channel_factors, drop_elements, scale_channels

DROPOUT_PLACEMENTS = ("all", "bottleneck")
NORMS = ("batch", "group", "none")

# Name of the convolutions' results, for what a training step keeps of them.
CONVOLUTION = "convolution"

# Running averages over about the last 50 updates: settled even in short trainings.
_BATCH_NORM_MOMENTUM = 0.98

# From activations (b, z, x, y, c) to what dropout leaves of them.
Drop = Callable[[Array], Array]


class ConvBlock(nn.Module):
    """Convolution 3x3x3 -> ReLU -> dropout -> normalisation, on (b, z, x, y, c)."""

    in_features: int
    features: int
    norm: str
    dtype: Any

    def setup(self) -> None:
        shape = (3, 3, 3, self.in_features, self.features)
        self.kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        self.bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.norm == "batch":
            self.normalise = nn.BatchNorm(
                momentum=_BATCH_NORM_MOMENTUM, dtype=self.dtype
            )
        elif self.norm == "group":
            self.normalise = nn.GroupNorm(num_groups=None, group_size=8)

    def __call__(self, *inputs: Array, train: bool, drop: Drop | None) -> Array:
        return self.regularise(self.activate(*inputs), train=train, drop=drop)

    def activate(self, *inputs: Array) -> Array:
        """What precedes the dropout: the same for every Monte Carlo sample.

        inputs: a volume, or a volume of half the size, to be upsampled, and a skip.
        """
        inputs = tuple(x.astype(self.dtype) for x in inputs)
        x = convolve(inputs, self.kernel.astype(self.dtype))
        x = checkpoint_name(x, CONVOLUTION)
        return nn.relu(x + self.bias.astype(self.dtype).reshape(1, 1, 1, 1, -1))

    def regularise(self, x: Array, *, train: bool, drop: Drop | None) -> Array:
        """Dropout and normalisation, two separate switches."""
        if drop is not None:
            x = drop(x)
        if self.norm == "batch":
            return self.normalise(x, use_running_average=not train)  # pyright: ignore
        if self.norm == "group":
            return self.normalise(x).astype(self.dtype)
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
      one_mask: the items of a batch share one draw of masks, that of a batch of one.
      dtype: of the computation; parameters, logits and reductions are float32.
    """

    features: int = 32
    depth: int = 4
    norm: str = "batch"
    dropout_kind: str = "spatial"
    dropout_placement: str = "all"
    dropout_rate: float = 0.1
    one_mask: bool = False
    dtype: Any = jnp.float32

    def setup(self) -> None:
        blocks = {}
        channels = 1
        for level in range(self.depth):
            for index, width in enumerate((self.features << level) * w for w in (1, 2)):
                blocks[f"down{level}_conv{index}"] = self._block(channels, width)
                channels = width
        for level in reversed(range(self.depth - 1)):
            channels += self.features << level + 1  # the concatenated skip
            for index, width in enumerate((self.features << level) * w for w in (2, 1)):
                blocks[f"up{level}_conv{index}"] = self._block(channels, width)
                channels = width
        self.blocks = blocks
        self.head = nn.Dense(1, dtype=jnp.float32)

    def _block(self, channels: int, width: int) -> ConvBlock:
        return ConvBlock(channels, width, self.norm, self.dtype)

    def __call__(self, x: Array, *, train: bool, dropout: bool) -> Array:
        """Foreground logits (b, x, y, z) float32 of images (b, x, y, z, 1).

        Args:
          x: z-scored images; each spatial axis divisible by 2**(depth - 1).
          train: BatchNorm takes batch statistics and updates its running averages
            (apply with mutable=["batch_stats"]); otherwise it uses the averages.
          dropout: activations are dropped (needs rngs={"dropout": key}). Training is
            (True, True), Monte Carlo sampling (False, True), a plain pass neither.

        Raises:
          InputError: a spatial axis is not divisible by 2**(depth - 1).
        """
        shared = self.before_dropout(x, train=train)
        return self.after_dropout(shared, train=train, dropout=dropout)

    def before_dropout(self, x: Array, *, train: bool) -> tuple[Array, ...]:
        """The part of the network that all Monte Carlo samples share.

        Up to the first activation for placement "all", the whole way down to the
        bottleneck's first activation, with its skips, for "bottleneck".
        """
        check_divisible(x.shape[1:4], self.depth)
        x = x.transpose(0, 3, 1, 2, 4)  # z first: what conv3d is fast at
        if self.dropout_placement == "all":
            return (self.blocks["down0_conv0"].activate(x),)
        *skips, x = self._down(x, range(self.depth - 1), {}, train=train)
        return (*skips, self.blocks[f"down{self.depth - 1}_conv0"].activate(x))

    def after_dropout(
        self, shared: tuple[Array, ...], *, train: bool, dropout: bool
    ) -> Array:
        """Logits from what `before_dropout` returned."""
        *skips, x = shared
        level = len(skips)
        drops = self._drops(x.shape[0]) if dropout else {}

        def block(name: str, *inputs: Array) -> Array:
            return self.blocks[name](*inputs, train=train, drop=drops.get(name))

        first = f"down{level}_conv0"
        x = self.blocks[first].regularise(x, train=train, drop=drops.get(first))
        x = block(f"down{level}_conv1", x)
        if level < self.depth - 1:
            skips.append(x)
            lower = range(level + 1, self.depth - 1)
            *more, x = self._down(max_pool(x), lower, drops, train=train)
            skips += more
            x = block(f"down{self.depth - 1}_conv0", x)
            x = block(f"down{self.depth - 1}_conv1", x)
        for level in reversed(range(self.depth - 1)):
            x = block(f"up{level}_conv0", x, skips[level])
            x = block(f"up{level}_conv1", x)
        logits = self.head(x.astype(jnp.float32))[..., 0]
        return logits.transpose(0, 2, 3, 1)

    def dropout_masks(self) -> dict[str, Array]:
        """Per block that drops channels (c,): 0 for those dropped under
        rngs={"dropout": key}, the factor of the survivors elsewhere. Those of a batch
        of one, or of `one_mask`; none of kind "element"."""
        if self.dropout_kind == "element" or not self._dropping():
            return {}
        factors = self._channel_factors(self.make_rng("dropout"), 1)
        return {name: factor[0] for name, factor in factors.items()}

    def _dropping(self) -> list[str]:
        """Names of the blocks that drop something when dropout is on."""
        everywhere = self.dropout_placement == "all"
        bottleneck = f"down{self.depth - 1}_"
        names = [n for n in self.blocks if everywhere or n.startswith(bottleneck)]
        return names if self.dropout_rate > 0 else []

    def _drops(self, batch: int) -> dict[str, Drop]:
        names = self._dropping()
        if not names:
            return {}
        key = self.make_rng("dropout")
        if self.dropout_kind == "element":
            how = {"rate": self.dropout_rate, "one_mask": self.one_mask}
            keys = jax.random.split(key, len(names))
            return {
                name: functools.partial(drop_elements, key=key, **how)
                for name, key in zip(names, keys, strict=True)
            }
        factors = self._channel_factors(key, 1 if self.one_mask else batch)
        return {
            name: functools.partial(scale_channels, factors=factor)
            for name, factor in factors.items()
        }

    def _channel_factors(self, key: Array, items: int) -> dict[str, Array]:
        names = self._dropping()
        factors = channel_factors(
            key,
            [self.blocks[name].features for name in names],
            kind=self.dropout_kind,
            rate=self.dropout_rate,
            items=items,
        )
        return dict(zip(names, factors, strict=True))

    def _down(
        self, x: Array, levels: range, drops: dict[str, Drop], *, train: bool
    ) -> list[Array]:
        """Skips of the levels, then the pooled output of the last."""
        skips = []
        for level in levels:
            for name in (f"down{level}_conv0", f"down{level}_conv1"):
                x = self.blocks[name](x, train=train, drop=drops.get(name))
            skips.append(x)
            x = max_pool(x)
        return [*skips, x]


def check_divisible(patch_shape: tuple[int, ...], depth: int) -> None:
    """Raises InputError unless every axis can be halved depth - 1 times."""
    factor = 2 ** (depth - 1)
    if any(size % factor or size < factor for size in patch_shape):
        raise InputError(
            f"patch {tuple(patch_shape)} does not fit a U-Net of depth {depth}: every "
            f"axis must be a multiple of {factor}; change the patch or model.depth"
        )


def max_pool(x: Array) -> Array:
    """Largest of 2 x 2 x 2 neighbours, (b, z, x, y, c).

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
