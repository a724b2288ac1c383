"""Patches of volumes: window corners, extraction, stitching, sampling for training."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from unc_jax.errors import InputError


def window_corners(
    volume_shape: Sequence[int],
    patch_shape: Sequence[int],
    overlap: float | Sequence[float],
) -> np.ndarray:
    """Returns the lowest corners of a grid of windows that covers the whole volume.

    Per axis the stride is the patch size minus the overlap, and the last window is
    moved back to end with the volume:

        volume 10, patch 5, overlap 0.4:   [0 1 2 3 4]
                                                 [3 4 5 6 7]
                                                     [5 6 7 8 9]

    Args:
      volume_shape: (x, y, z).
      patch_shape: (x, y, z), not larger than the volume along any axis.
      overlap: fraction of a window shared with its neighbour, in [0, 1); one number
        or one per axis.

    Returns:
      int[p, 3], z fastest.

    Raises:
      InputError: a window larger than the volume, or an overlap outside [0, 1).
    """
    fractions = np.broadcast_to(np.asarray(overlap, float), 3)
    if not ((fractions >= 0) & (fractions < 1)).all():
        raise InputError(f"window overlap {overlap} must lie in [0, 1)")
    starts = []
    for size, window, fraction in zip(
        volume_shape, patch_shape, fractions, strict=True
    ):
        if not 1 <= window <= size:
            raise InputError(
                f"patch {tuple(patch_shape)} does not fit into a volume of "
                f"{tuple(volume_shape)}; choose a smaller patch_shape"
            )
        stride = max(1, round(window * (1 - fraction)))
        regular = np.arange(0, size - window, stride)
        starts.append(np.append(regular, size - window))
    grid = np.meshgrid(*starts, indexing="ij")
    return np.stack(grid, axis=-1).reshape(-1, 3).astype(np.int32)


def padded_shape(
    volume_shape: Sequence[int], patch_shape: Sequence[int]
) -> tuple[int, ...]:
    """Returns the shape of a volume that is padded to hold a window, per axis."""
    return tuple(map(max, volume_shape, patch_shape))


def pad_to(volume: Array, patch_shape: Sequence[int]) -> Array:
    """Returns a volume (x, y, z), continued by its last planes to hold a window."""
    shape = padded_shape(volume.shape, patch_shape)
    if shape == volume.shape:
        return volume
    widths = [(0, new - old) for new, old in zip(shape, volume.shape, strict=True)]
    return jnp.pad(volume, widths, mode="edge")


def extract(volume: Array, corners: Array, patch_shape: Sequence[int]) -> Array:
    """Cuts patches (p, *patch_shape) out of a volume (x, y, z) at corners int[p, 3].

    A patch that would leave the volume is moved inside (`dynamic_slice`).
    """
    corners = jnp.asarray(corners)
    return jax.vmap(lambda c: lax.dynamic_slice(volume, c, tuple(patch_shape)))(corners)


def stitch(patches: Array, corners: Array, volume_shape: Sequence[int]) -> Array:
    """Averages overlapping patches: each voxel is the mean of those that cover it.

    Args:
      patches: (p, px, py, pz).
      corners: int[p, 3].
      volume_shape: (x, y, z).

    Returns:
      The mean (x, y, z) in the dtype of `patches`; NaN where there is no patch.
    """
    patches, corners = jnp.asarray(patches), jnp.asarray(corners)

    def add(sums: tuple[Array, Array], item: tuple[Array, Array]):
        (total, count), (patch, corner) = sums, item
        total = add_patch(total, patch, corner)
        return (total, add_patch(count, jnp.ones_like(patch), corner)), None

    empty = jnp.zeros(tuple(volume_shape), patches.dtype)
    (total, count), _ = lax.scan(add, (empty, empty), (patches, corners))
    return total / count


def add_patch(volume: Array, patch: Array, corner: Array) -> Array:
    """Returns `volume` with `patch` added at `corner` of the last three axes."""
    start = (*([0] * (volume.ndim - 3)), corner[0], corner[1], corner[2])
    present = lax.dynamic_slice(volume, start, patch.shape)
    return lax.dynamic_update_slice(volume, present + patch, start)


def coverage(
    corners: np.ndarray,
    patch_shape: Sequence[int],
    volume_shape: Sequence[int],
) -> list[np.ndarray]:
    """Returns the number of windows that cover each index along each axis.

    corners: all corners of a grid (`window_corners`). Returns float32 (x,), (y,), (z,);
    their outer product is the number of windows at each voxel.
    """
    along = []
    for axis, (window, size) in enumerate(zip(patch_shape, volume_shape, strict=True)):
        count = np.zeros(size, np.float32)
        for start in np.unique(corners[:, axis]):
            count[start : start + window] += 1
        along.append(count)
    return along


def draw_corners(
    key: Array,
    step: Array,
    foreground: Array,
    foreground_counts: Array,
    *,
    batch: int,
    patch_shape: Sequence[int],
    volume_shape: Sequence[int],
    foreground_fraction: float,
) -> tuple[Array, Array]:
    """Draws the cases int32[b] and patch corners int32[b, 3] of one training step.

    Foreground and other patches alternate by quota (DeepNeuro, Beers et al., 2018):
    among the first k patches of the whole training, floor(k * foreground_fraction) are
    centred on a foreground voxel of their case and the others anywhere. Patches near a
    border are moved inside the volume, so that every voxel can be in a patch and no
    padding is needed. Patches of a case without foreground are centred anywhere.

    Args:
      key: of purpose "patches".
      step: index of the update; the result depends only on (key, step).
      foreground: int16 (cases, m, 3), voxel coordinates, padded at the end.
      foreground_counts: int32 (cases,), number of valid rows of the m.
      batch: number of patches.
      patch_shape, volume_shape: voxels (x, y, z).
      foreground_fraction: share of patches centred on foreground.
    """
    case_key, row_key, voxel_key = jax.random.split(jax.random.fold_in(key, step), 3)
    case = jax.random.randint(case_key, (batch,), 0, foreground.shape[0])
    count = foreground_counts[case]
    row = jax.random.randint(row_key, (batch,), 0, jnp.maximum(count, 1))
    on_foreground = foreground[case, row].astype(jnp.int32)
    sizes = jnp.asarray(volume_shape, jnp.int32).reshape(1, 3)
    anywhere = jax.random.randint(voxel_key, (batch, 3), 0, sizes)
    place = step * batch + jnp.arange(batch)
    per_mille = round(1000 * foreground_fraction)
    quota = _filled(place + 1, per_mille) > _filled(place, per_mille)
    chosen = (quota & (count > 0)).reshape(batch, 1)
    centre = jnp.where(chosen, on_foreground, anywhere)
    window = jnp.asarray(patch_shape, jnp.int32).reshape(1, 3)
    return case, jnp.clip(centre - window // 2, 0, sizes - window)


def _filled(place: Array, per_mille: int) -> Array:
    # Modulo the period, so that large steps stay exact in int32.
    return place % 1000 * per_mille // 1000 + place // 1000 * per_mille
