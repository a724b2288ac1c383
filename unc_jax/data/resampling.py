"""Resampling of volumes and their affines; the outer voxel edges are aligned."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

# Output planes per task: a cache line holds 16 float32, so a block that is written
# across the memory order of its target still fills whole lines.
_BLOCK_PLANES = 16
_MAX_THREADS = 4

Box = tuple[slice, slice, slice]


def resample(volume: np.ndarray, shape: Sequence[int], order: int) -> np.ndarray:
    """Interpolates a volume (x, y, z) on a grid of `shape` with the same outer edges.

    The centre of output voxel i lies at (i + 0.5) * in / out - 0.5 input voxels,
    clamped to the first and last centre (`scipy.ndimage.zoom` with grid_mode=True and
    mode="nearest"; `align_corners=False` in PyTorch). Nothing is smoothed beforehand.

    Memory besides the result: a few planes per thread, whatever the order of the axes
    in memory, on which the result depends only by rounding.

    Args:
      volume: any real type, any memory order; views of files are read plane by plane.
      shape: three sizes >= 1.
      order: 1 interpolates linearly; 0 takes the nearest voxel, the upper one of two
        equally near (halving an axis thus takes every second voxel, half an input
        voxel off centre, which is below the precision of a mask).

    Returns:
      C-ordered array: float32 for order 1, the input's type for order 0.

    Raises:
      ValueError: another order, a volume that is not 3-D, or an empty side.
    """
    result = np.empty(tuple(shape), np.float32 if order == 1 else volume.dtype)
    resample_into(result, volume, order)
    return result


def resample_into(target: np.ndarray, volume: np.ndarray, order: int) -> None:
    """Writes a resampled volume into an array or view, whose shape it fills."""
    if order not in (0, 1):
        raise ValueError(f"order {order}: 0 is nearest, 1 is linear")
    if not volume.ndim == target.ndim == 3 or 0 in volume.shape + target.shape:
        raise ValueError(f"cannot resample {volume.shape} to {target.shape}")
    # Planes are perpendicular to the axis with the largest stride, so that each is read
    # in memory order; scans have x fastest, our own arrays z fastest.
    axes = sorted(range(3), key=lambda axis: -abs(volume.strides[axis]))
    source, goal = volume.transpose(axes), target.transpose(axes)
    taps = [_taps(a, b, order) for a, b in zip(source.shape, goal.shape, strict=True)]
    for axis in range(3):
        if source.strides[axis] < 0:  # read forwards, with the places counted backwards
            source = np.flip(source, axis)
            taps[axis] = taps[axis].backwards(source.shape[axis])
    fill = _fill_linear if order == 1 else _fill_nearest
    starts = range(0, goal.shape[0], _BLOCK_PLANES)

    def run(start: int) -> None:
        fill(goal, source, taps, range(start, min(start + _BLOCK_PLANES, len(goal))))

    threads = min(_MAX_THREADS, os.cpu_count() or 1, len(starts))
    if threads == 1 or goal.size < 1 << 18:  # a small volume is done before they start
        for start in starts:
            run(start)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(run, starts))


def restore(
    volume: np.ndarray, raw_shape: Sequence[int], box: Box, order: int, fill: float
) -> np.ndarray:
    """Returns a prepared volume on the scan's canonical grid: undoes crop and resample.

    `order`, memory and errors are those of `resample`; raises ValueError too if the box
    leaves the scan.

    Args:
      volume: (x, y, z) on the prepared grid.
      raw_shape: canonical shape of the scan; box: the part of it that `volume` spans.
      fill: value outside the box.
    """
    volume = np.asarray(volume)
    sides = zip(box, raw_shape, strict=True)
    if not all(0 <= side.start < side.stop <= size for side, size in sides):
        raise ValueError(f"box {box} leaves the scan of {tuple(raw_shape)}")
    dtype = np.float32 if order == 1 else volume.dtype
    result = np.full(tuple(raw_shape), fill, dtype)
    resample_into(result[box], volume, order)
    return result


def cropped_affine(affine: np.ndarray, box: Box) -> np.ndarray:
    """Returns the affine (4x4, voxel -> mm) of the part `box` of a grid."""
    corner = [side.start for side in box]
    return _moved(np.asarray(affine, float), np.ones(3), np.asarray(corner, float))


def resampled_affine(
    affine: np.ndarray, from_shape: Sequence[int], to_shape: Sequence[int]
) -> np.ndarray:
    """Returns the affine (4x4, voxel -> mm) of a grid after `resample`."""
    scale = np.divide(from_shape, to_shape)
    return _moved(np.asarray(affine, float), scale, 0.5 * scale - 0.5)


class _Taps(NamedTuple):
    """Weights along an axis: out = (1 - weight) * data[low] + weight * data[high]."""

    low: np.ndarray
    high: np.ndarray
    weight: np.ndarray
    identity: bool

    def backwards(self, size: int) -> "_Taps":
        low, high = size - 1 - self.low, size - 1 - self.high
        return _Taps(low, high, self.weight, False)


def _taps(size: int, new_size: int, order: int) -> _Taps:
    if order == 0:
        # In whole numbers, so that rounding cannot decide a tie.
        low = (2 * np.arange(new_size) + 1) * size // (2 * new_size)
        return _Taps(low, low, np.zeros(new_size, np.float32), size == new_size)
    place = (np.arange(new_size) + 0.5) * size / new_size - 0.5
    place = place.clip(0, size - 1)
    low = np.floor(place).astype(np.intp)
    weight = (place - low).astype(np.float32)
    # A neighbour without weight is not read: it may be NaN.
    high = np.where(weight > 0, np.minimum(low + 1, size - 1), low)
    return _Taps(low, high, weight, size == new_size)


def _fill_linear(
    goal: np.ndarray, source: np.ndarray, taps: Sequence[_Taps], planes: range
) -> None:
    across, rows, columns = taps
    block = np.empty((len(planes), *goal.shape[1:]), np.float32)
    low = np.empty(source.shape[1:], np.float32)
    high = np.empty_like(low)
    for place, plane in enumerate(planes):
        weight = across.weight[plane]
        np.copyto(low, source[across.low[plane]], casting="same_kind")
        if weight > 0:
            np.copyto(high, source[across.high[plane]], casting="same_kind")
            _blend(low, high, weight)
        narrow = _interpolate(low, rows, axis=0)
        block[place] = _interpolate(narrow, columns, axis=1)
    goal[planes.start : planes.stop] = block


def _interpolate(plane: np.ndarray, taps: _Taps, *, axis: int) -> np.ndarray:
    if taps.identity:
        return plane
    low = plane.take(taps.low, axis)
    high = plane.take(taps.high, axis)
    _blend(low, high, taps.weight[:, None] if axis == 0 else taps.weight)
    return low


def _blend(low: np.ndarray, high: np.ndarray, weight: np.ndarray) -> None:
    # low + weight * (high - low): exact where both agree, so a constant stays constant.
    high -= low
    high *= weight
    low += high


def _fill_nearest(
    goal: np.ndarray, source: np.ndarray, taps: Sequence[_Taps], planes: range
) -> None:
    across, rows, columns = (axis.low for axis in taps)
    block = np.empty((len(planes), *goal.shape[1:]), goal.dtype)
    for place, plane in enumerate(planes):
        block[place] = source[across[plane]].take(rows, 0).take(columns, 1)
    goal[planes.start : planes.stop] = block


def _moved(affine: np.ndarray, scale: np.ndarray, origin: np.ndarray) -> np.ndarray:
    step = np.diag([*scale, 1.0])
    step[:3, 3] = origin
    return affine @ step
