"""Mean, mask and uncertainty of a case, on the scan's own grid."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import nifti
from unc_jax.data.nifti import Geometry
from unc_jax.data.preprocess import Box
from unc_jax.data.resampling import restore

MAPS = ("mask", "mean", "uncertainty")


class Maps(NamedTuple):
    """On the scan's canonical grid: bool mask, float32 mean and uncertainty (nats)."""

    mask: np.ndarray
    mean: np.ndarray
    uncertainty: np.ndarray


def on_scan(
    mean: np.ndarray, uncertainty: np.ndarray, geometry: Geometry, box: Box
) -> Maps:
    """Prepared volumes (x, y, z), interpolated back; 0 outside `box`."""
    shape = geometry.canonical_shape
    restored = restore(mean, shape, box, order=1, fill=0.0)
    spread = restore(uncertainty, shape, box, order=1, fill=0.0)
    return Maps(restored >= 0.5, restored, spread)


def write_maps(folder: Path, maps: Maps, geometry: Geometry) -> None:
    """FOLDER/{mask,mean,uncertainty}.nii.gz with the scan's affine, each whole."""
    for name, dtype in zip(MAPS, (np.uint8, np.float32, np.float32), strict=True):
        nifti.write(folder / f"{name}.nii.gz", getattr(maps, name), geometry, dtype)
