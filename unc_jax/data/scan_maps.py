"""Mean, mask and uncertainty of a case, on the scan's own grid."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import nifti
from unc_jax.data.geometry import Geometry
from unc_jax.data.preprocess import Box
from unc_jax.data.resampling import restore

MAPS = ("mask", "mean", "uncertainty")
_STEPS = np.float32(1024)  # levels of a written map per unit


class Maps(NamedTuple):
    """Maps on the scan's canonical grid; mask is bool, uncertainty in nats."""

    mask: np.ndarray
    mean: np.ndarray
    uncertainty: np.ndarray


def on_scan(
    mean: np.ndarray, uncertainty: np.ndarray, geometry: Geometry, box: Box
) -> Maps:
    """Resamples prepared volumes (x, y, z) to the scan's grid; 0 outside `box`."""
    shape = geometry.canonical_shape
    restored = mean_on_scan(mean, geometry, box)
    spread = restore(uncertainty, shape, box, order=1, fill=0.0)
    return Maps(restored >= 0.5, restored, spread)


def mean_on_scan(mean: np.ndarray, geometry: Geometry, box: Box) -> np.ndarray:
    """Resamples a mean (x, y, z) to the scan's grid; the mask is where it is >= 0.5."""
    return restore(mean, geometry.canonical_shape, box, order=1, fill=0.0)


def write_samples(
    folder: Path, masks: np.ndarray, shape: Sequence[int], geometry: Geometry, box: Box
) -> None:
    """Writes FOLDER/samples/NN.nii.gz, each sample's mask on the scan's own grid.

    masks: bit-packed, uint8 (n, x, y, bytes), on the prepared grid of `shape`.
    """
    for number, packed in enumerate(masks):
        mask = np.unpackbits(packed, axis=-1, count=shape[2]).astype(np.float32)
        whole = restore(mask, geometry.canonical_shape, box, order=1, fill=0.0) >= 0.5
        path = folder / "samples" / f"{number:02d}.nii.gz"
        nifti.write(path, whole, geometry, np.uint8)


def write_maps(folder: Path, maps: Maps, geometry: Geometry) -> None:
    """Writes FOLDER/{mask,mean,uncertainty}.nii.gz on the scan's own grid, atomically.

    Mean and uncertainty are truncated to multiples of 1/1024, because further digits
    would make the files several times as large. They are not rounded, so that the
    written mean is >= 0.5 exactly inside the mask.
    """
    nifti.write(folder / "mask.nii.gz", maps.mask, geometry, np.uint8)
    for name in ("mean", "uncertainty"):
        cut = np.floor(getattr(maps, name) * _STEPS)
        cut /= _STEPS
        nifti.write(folder / f"{name}.nii.gz", cut, geometry, np.float32)
