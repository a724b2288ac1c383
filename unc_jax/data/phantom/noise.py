"""Noise of the scanner: grainy, not white, and a little alike from slice to slice."""

import numpy as np
from scipy.ndimage import correlate1d

from unc_jax.data.phantom.grid import Grid
from unc_jax.data.phantom.protocol import Protocol


class Noise:
    """Correlated noise, plane after plane: blurred in plane, autoregressive along z."""

    def __init__(self, rng: np.random.Generator, grid: Grid, scan: Protocol) -> None:
        self.rng, self.shape = rng, grid.shape[1::-1]
        self.sd = np.float32(scan.noise_hu)
        sigma = max(0.45, 0.6 * scan.blur_mm / grid.spacing[0])
        reach = np.arange(-3, 4)
        kernel = np.exp(-0.5 * np.square(reach / sigma))
        self.kernel = (kernel / np.sqrt(np.square(kernel).sum())).astype(np.float32)
        self.memory = np.float32(0.3)
        self.last: np.ndarray | None = None

    def planes(self, count: int) -> np.ndarray:
        """Draws the noise of the next `count` slices, float32 (count, y, x), HU."""
        noise = self.rng.standard_normal((count, *self.shape), np.float32)
        noise = correlate1d(noise, self.kernel, axis=1, mode="wrap")
        noise = correlate1d(noise, self.kernel, axis=2, mode="wrap")
        fresh = np.sqrt(1 - self.memory**2)
        for number in range(count):
            if self.last is not None:
                noise[number] *= fresh
                noise[number] += self.memory * self.last
            self.last = noise[number].copy()
        noise *= self.sd
        return noise
