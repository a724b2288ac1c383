"""Slab of a few planes of the grid, and painting of tissues on it."""

from typing import NamedTuple

import numpy as np

from unc_jax.data.phantom.shape import Box, Points

Window = tuple[slice, slice, slice]

# The frame is bent by less than this, so boxes are widened by it.
BEND_MM = 16.0


class Slab(NamedTuple):
    """Planes of one scan, arrays (z, y, x) so that x runs fastest.

    `x, y, z`: 1-D positions before bending; `points` after it; `hu` is painted in
    place; `width_mm` is the width of a voxel, over which an edge is blurred.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    points: Points
    hu: np.ndarray
    width_mm: float

    def window(self, box: Box, step: int = 1) -> Window | None:
        """Returns slices (z, y, x) of voxels that may lie in `box`; None without any.

        In z whole groups of `step` planes.
        """
        slices = []
        for axis, positions in ((2, self.z), (1, self.y), (0, self.x)):
            margin = BEND_MM + self.width_mm
            low, high = box.low[axis] - margin, box.high[axis] + margin
            inside = np.flatnonzero((positions >= low) & (positions <= high))
            if not len(inside):
                return None
            slices.append(slice(int(inside[0]), int(inside[-1]) + 1))
        planes, rows, columns = slices
        first, last = planes.start // step * step, -(-planes.stop // step) * step
        return slice(first, last), rows, columns

    def crop(self, window: Window) -> "Slab":
        """Returns the part in `window`, as views: painting it paints the whole."""
        planes, rows, columns = window
        points = Points(*(p[window] for p in self.points))
        x, y, z = self.x[columns], self.y[rows], self.z[planes]
        return Slab(x, y, z, points, self.hu[window], self.width_mm)

    def within(self, box: Box) -> "Slab | None":
        window = self.window(box)
        return None if window is None else self.crop(window)

    def paint(
        self, distance: np.ndarray, hu: float | np.ndarray, blur_mm: float = 1.0
    ) -> None:
        """Lays a tissue over what is there; edge voxels get a mixture."""
        blend(self.hu, coverage(distance, np.hypot(self.width_mm, blur_mm)), hu)


def coverage(distance: np.ndarray, width_mm: float | np.ndarray) -> np.ndarray:
    """Returns the share of a voxel that lies inside, for an edge `width_mm` wide."""
    share = distance * np.float32(-1) / np.asarray(width_mm, np.float32)
    share += np.float32(0.5)
    return np.clip(share, 0, 1, out=share)


def blend(hu: np.ndarray, share: np.ndarray, value: float | np.ndarray) -> None:
    share *= np.asarray(value, np.float32) - hu
    hu += share
