"""Smooth random fields, defined in mm, so that any grid sees the same one."""

import zlib

import numpy as np

# The anatomical frame, mm: x to the right, y to the front, z up; (low, high).
FRAME = np.array([[-280.0, 280.0], [-220.0, 220.0], [-520.0, 300.0]])
# Mean square of a cubic B-spline sum with unit coefficients is 151/315 per axis.
_UNIT = (315 / 151) ** 1.5


def generator(seed: int, purpose: str, index: int) -> np.random.Generator:
    """Returns a random generator that depends on (seed, purpose, index) alone."""
    key = (seed, zlib.crc32(purpose.encode()), index)
    return np.random.default_rng(np.random.SeedSequence(key))


class SmoothField:
    """Random tensor-product cubic B-spline with normal coefficients `pitch_mm` apart.

    Mean 0, standard deviation about 1, features about 1.5 pitches wide. Evaluated on a
    grid by three matrix products, which costs a few ns per voxel at any grid size.
    """

    def __init__(self, rng: np.random.Generator, pitch_mm: float) -> None:
        counts = np.ceil((FRAME[:, 1] - FRAME[:, 0]) / pitch_mm).astype(int) + 3
        self.pitch_mm = pitch_mm
        self.coefficients = np.float32(_UNIT) * rng.standard_normal(
            tuple(counts[::-1]), np.float32
        )

    def on(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Returns float32 values (z, y, x) on a grid of three 1-D arrays, mm."""
        values = self.coefficients
        planes, by_z = self._basis(z, 2)
        rows, by_y = self._basis(y, 1)
        columns, by_x = self._basis(x, 0)
        # z first: slabs are flat, so that the large last product has a short inner sum.
        values = np.tensordot(by_z, values[planes, rows, columns], 1)
        values = by_y @ values
        return (values.reshape(-1, values.shape[2]) @ by_x.T).reshape(
            len(z), len(y), len(x)
        )

    def _basis(self, positions: np.ndarray, axis: int) -> tuple[slice, np.ndarray]:
        """Returns the coefficients in use, and the weight of each at each position."""
        low, high = FRAME[axis]
        last = int(np.ceil((high - low) / self.pitch_mm)) - 1
        at = np.clip((positions - low) / self.pitch_mm, 0, last + 0.999)
        cell = np.minimum(at.astype(int), last)
        t = at - cell
        weights = (
            (1 - t) ** 3 / 6,
            (3 * t**3 - 6 * t**2 + 4) / 6,
            (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6,
            t**3 / 6,
        )
        first = int(cell.min())
        basis = np.zeros((len(at), int(cell.max()) - first + 4), np.float32)
        for offset, weight in enumerate(weights):
            basis[np.arange(len(at)), cell - first + offset] = weight
        return slice(first, first + basis.shape[1]), basis
