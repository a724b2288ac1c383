"""Samples of blobs, in memory and as files, for the tests of scoring."""

import numpy as np

from unc_jax.data import nifti
from unc_jax.data.nifti import Geometry

SHAPE = (14, 12, 10)
# Stored left to right, back to front, and turned upside down.
AFFINE = np.array([[-2.0, 0, 0, 30], [0, 1.5, 0, -7], [0, 0, -3.0, 90], [0, 0, 0, 1]])


def probability_maps(seed=0, n=5, shape=SHAPE):
    """Blobs that differ in size and place, float32 (n, x, y, z)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.indices(shape), axis=-1).astype(float)
    centre = np.array(shape) / 2 + rng.normal(0, 0.7, (n, 1, 1, 1, 3))
    radius = 3.5 + rng.normal(0, 0.5, (n, 1, 1, 1))
    distance = np.linalg.norm(grid - centre, axis=-1)
    return (1 / (1 + np.exp(2 * (distance - radius)))).astype(np.float32)


def write(path, array, affine=AFFINE):
    dtype = np.uint8 if array.dtype.kind in "bui" else np.float32
    geometry = Geometry(array.shape, affine)
    nifti.write(path, nifti.to_canonical(array, geometry), geometry, dtype)


def write_cases(root, cases=("a", "b"), n=4, hard=False):
    """CASE/NUMBER.nii.gz; returns the arrays in stored order."""
    arrays = {}
    for seed, case in enumerate(cases):
        maps = probability_maps(seed, n)
        arrays[case] = (maps >= 0.5).astype(np.uint8) if hard else maps
        for i, array in enumerate(arrays[case]):
            write(root / case / f"{i}.nii.gz", array)
    return arrays
