"""A Monte Carlo sample as the small dense network that its dropout leaves.

Where one set of channel masks holds for all windows of a volume, dropped channels need
neither be computed nor read. After dropout a channel is normalised by running averages,
y = scale * x + shift, so a dropped one is the constant `shift`, which reaches the next
convolution only through the zeros around the window: a field that depends on the
position alone. The thinned network computes kept channels without their shift, and adds
one such field, of all shifts, before each ReLU. That is the masked network up to
rounding, sample by sample, with (kept / all)^2 of its arithmetic.

Sizes must be static for XLA. Each convolution is given `widths` channels, a multiple of
8 that Bernoulli masks of its rate seldom exceed; a sample that does is computed with
all channels.
"""

import math
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from unc_jax.segmentation.cpu_conv.upsampled import convolve
from unc_jax.segmentation.unet import UNet3D, max_pool

_EPSILON = 1e-5  # of flax.linen.BatchNorm
# Standard deviations of the number of kept channels that fit in a convolution's width.
_MARGIN = 2.0

Widths = dict[str, int]
Kept = dict[str, np.ndarray]


class ThinBlock(NamedTuple):
    """relu(conv(x, kernel) + conv(1, shifted) + bias) * scale."""

    kernel: Array  # (3, 3, 3, kept in, kept out)
    shifted: Array  # (3, 3, 3, kept out), the kernel times the shifts of its inputs
    bias: Array  # (kept out,)
    scale: Array  # (kept out,); 0 for a dropped channel that fills up the width


class ThinNetwork(NamedTuple):
    blocks: dict[str, ThinBlock]
    head_kernel: Array  # (kept, 1)
    head_bias: Array  # (1,)


def can_thin(model: UNet3D) -> bool:
    """Whether whole channels are dropped everywhere, and constants stay constants."""
    return (
        model.dropout_kind in ("spatial", "fixed")
        and model.dropout_placement == "all"
        and model.norm in ("batch", "none")
        and model.dropout_rate > 0
    )


def thin_widths(model: UNet3D) -> Widths:
    """Channels that each convolution is given, by block; all of them where few drop."""
    return {name: _width(model, all_) for name, all_ in full_widths(model).items()}


def full_widths(model: UNet3D) -> Widths:
    """All channels of each block."""
    widths = {}
    for level in range(model.depth):
        base = model.features << level
        widths |= {f"down{level}_conv0": base, f"down{level}_conv1": 2 * base}
        if level < model.depth - 1:
            widths |= {f"up{level}_conv0": 2 * base, f"up{level}_conv1": base}
    return widths


def share_of_work(model: UNet3D) -> float:
    """Products of the thinned network over those of the whole one."""
    thin, full = (
        sum(
            (sum(widths[source] for source in sources) if sources else 1)
            * widths[name]
            / 8 ** _level(name)
            for name, sources in _topology(model.depth).items()
        )
        for widths in (thin_widths(model), full_widths(model))
    )
    return thin / full


def _level(name: str) -> int:
    return int(name.partition("_")[0].removeprefix("down").removeprefix("up"))


def _width(model: UNet3D, channels: int) -> int:
    kept = (1 - model.dropout_rate) * channels
    if model.dropout_kind == "spatial":
        kept += _MARGIN * math.sqrt(kept * model.dropout_rate)
    return min(channels, max(8, 8 * math.ceil(round(kept) / 8)))


def kept_channels(masks: dict[str, Array], widths: Widths) -> Kept | None:
    """The channels to compute, kept ones first, in their order; None if not all fit.

    On the host: compiling sorts for every convolution takes longer than they do.

    masks: per block (..., c), 0 where dropped. Returns per block int (..., width).
    """
    kept = {}
    for name, mask in masks.items():
        dropped = np.asarray(mask) == 0
        if np.any(np.sum(~dropped, axis=-1) > widths[name]):
            return None
        kept[name] = np.argsort(dropped, kind="stable")[..., : widths[name]]
    return kept


def thin(
    variables: dict[str, Any], masks: dict[str, Array], kept: dict[str, Array]
) -> ThinNetwork:
    """The network under `masks`, of its `kept` channels alone; traceable.

    Args:
      variables: of UNet3D, with its running averages where it has BatchNorm.
      masks: per block (c,), 0 where dropped and the survivors' factor elsewhere
        (UNet3D.dropout_masks).
      kept: per block int (width,), the channels to compute (`kept_channels`).
    """
    depth = sum(name.startswith("down") for name in masks) // 2
    channels = {name: _affine(variables, name, mask) for name, mask in masks.items()}
    blocks = {}
    for name, sources in _topology(depth).items():
        params = variables["params"][f"blocks_{name}"]
        kernel = params["kernel"][..., kept[name]]
        rows, shift = _inputs(sources, kept, channels)
        blocks[name] = ThinBlock(
            kernel if rows is None else kernel[..., rows, :],
            jnp.einsum("ijkco,c->ijko", kernel, shift),
            params["bias"][kept[name]],
            channels[name][0][kept[name]],
        )
    head, last = (
        variables["params"]["head"],
        "up0_conv1" if depth > 1 else "down0_conv1",
    )
    return ThinNetwork(
        blocks,
        head["kernel"][kept[last]],
        head["bias"] + channels[last][1] @ head["kernel"],
    )


def apply_thin(network: ThinNetwork, windows: Array, dtype: Any) -> Array:
    """Foreground logits (b, x, y, z) float32 of windows (b, x, y, z, 1)."""
    depth = sum(name.startswith("down") for name in network.blocks) // 2

    def block(name: str, *inputs: Array) -> Array:
        return _apply_block(network.blocks[name], inputs, dtype)

    x = windows.transpose(0, 3, 1, 2, 4).astype(dtype)
    skips = []
    for level in range(depth):
        x = block(f"down{level}_conv1", block(f"down{level}_conv0", x))
        if level < depth - 1:
            skips.append(x)
            x = max_pool(x)
    for level in reversed(range(depth - 1)):
        x = block(f"up{level}_conv0", x, skips[level])
        x = block(f"up{level}_conv1", x)
    logits = (x.astype(jnp.float32) @ network.head_kernel)[..., 0] + network.head_bias[
        0
    ]
    return logits.transpose(0, 2, 3, 1)


def _topology(depth: int) -> dict[str, tuple[str, ...]]:
    """The blocks whose channels each block reads, in their order; () is the image."""
    sources: dict[str, tuple[str, ...]] = {}
    before: tuple[str, ...] = ()
    for level in range(depth):
        sources[f"down{level}_conv0"] = before
        sources[f"down{level}_conv1"] = (f"down{level}_conv0",)
        before = (f"down{level}_conv1",)
    for level in reversed(range(depth - 1)):
        sources[f"up{level}_conv0"] = (*before, f"down{level}_conv1")
        sources[f"up{level}_conv1"] = (f"up{level}_conv0",)
        before = (f"up{level}_conv1",)
    return sources


def _affine(variables: dict[str, Any], name: str, mask: Array) -> tuple[Array, Array]:
    """(scale, shift) of dropout and normalisation together, each (c,)."""
    params = variables["params"][f"blocks_{name}"]
    if "normalise" not in params:
        return mask, jnp.zeros_like(mask)
    averages = variables["batch_stats"][f"blocks_{name}"]["normalise"]
    gain = params["normalise"]["scale"] * jax.lax.rsqrt(averages["var"] + _EPSILON)
    return gain * mask, params["normalise"]["bias"] - averages["mean"] * gain


def _inputs(
    sources: tuple[str, ...],
    kept: dict[str, Array],
    channels: dict[str, tuple[Array, Array]],
) -> tuple[Array | None, Array]:
    """Rows of the kernel to read (None: all), and the shift of every input channel."""
    if not sources:
        return None, jnp.zeros(1)
    rows, start = [], 0
    for source in sources:
        rows.append(kept[source] + start)
        start += channels[source][1].shape[0]
    shifts = [channels[source][1] for source in sources]
    return jnp.concatenate(rows), jnp.concatenate(shifts)


def _apply_block(block: ThinBlock, inputs: tuple[Array, ...], dtype: Any) -> Array:
    x = convolve(inputs, block.kernel.astype(dtype))
    within = jnp.sum(block.shifted, (0, 1, 2))  # of all taps, away from the faces
    x = _less_at_faces(x, block.shifted, within)
    bias, scale = (
        row.astype(dtype).reshape(1, 1, 1, 1, -1)
        for row in (within + block.bias, block.scale)
    )
    return nn.relu(x + bias) * scale


def _less_at_faces(x: Array, shifted: Array, within: Array) -> Array:
    """x (b, z, x, y, c) less what constant inputs do not add at the volume's faces.

    There some taps meet the padding. Faces are few voxels: the field of the whole
    volume, added to each convolution, took a tenth of a pass.
    """
    inside = [_taps_inside(size) for size in x.shape[1:4]]
    place = [slice(None)] * 3
    for axis, size in enumerate(x.shape[1:4]):
        for end in sorted({0, size - 1}):
            place[axis] = slice(end, end + 1)
            z, across, along = (
                taps[part] for taps, part in zip(inside, place, strict=True)
            )
            added = jnp.einsum("zk,xi,yj,ijko->zxyo", z, across, along, shifted)
            missing = (added - within.reshape(1, 1, 1, -1)).astype(x.dtype)
            x = x.at[(slice(None), *place)].add(missing[None])
        place[axis] = slice(1, -1)  # this axis' faces are done
    return x


def _taps_inside(size: int) -> np.ndarray:
    """(size, 3): 1 where tap t of output i lies within the axis, i + t - 1."""
    position = np.arange(size)[:, None] + np.arange(-1, 2)[None]
    return ((position >= 0) & (position < size)).astype(np.float32)
