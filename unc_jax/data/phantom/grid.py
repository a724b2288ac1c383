"""Grid of a scan: its voxels in the patient and in the world."""

from typing import NamedTuple

import numpy as np

from unc_jax.data.phantom import protocol
from unc_jax.data.phantom.mask import Mask
from unc_jax.data.phantom.patient import Patient


class Grid(NamedTuple):
    """Grid of voxel centres in RAS+ order, mm in the patient frame."""

    shape: tuple[int, int, int]
    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    affine: np.ndarray  # voxel to the scanner's RAS mm

    def axis(self, number: int) -> np.ndarray:
        steps = np.arange(self.shape[number], dtype=np.float64)
        return self.origin[number] + self.spacing[number] * steps


def grid_of(patient: Patient, size: tuple[int, int, int] | None) -> Grid:
    """Returns the grid of a case: its field of view, cut into the voxels asked for."""
    scan = patient.protocol
    shape = protocol.grid_shape(scan, size)
    length = scan.slices * scan.spacing_mm
    spacing = (scan.fov_mm / shape[0], scan.fov_mm / shape[1], length / shape[2])
    low = (
        scan.centre_mm[0] - scan.fov_mm / 2,
        scan.centre_mm[1] - scan.fov_mm / 2,
        scan.top_mm - length,
    )
    x, y, z = (edge + 0.5 * step for edge, step in zip(low, spacing, strict=True))
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = x, y, z
    return Grid(shape, (x, y, z), spacing, affine)


def grid_on(patient: Patient, mask: Mask) -> Grid:
    """Returns the grid of a mask, placed so that the patient lies around it."""
    scan, (sx, sy, sz) = patient.protocol, mask.spacing_mm.tolist()
    low = (
        scan.centre_mm[0] - mask.shape[0] * sx / 2,
        scan.centre_mm[1] - mask.shape[1] * sy / 2,
        scan.top_mm - mask.shape[2] * sz,
    )
    origin = (low[0] + sx / 2, low[1] + sy / 2, low[2] + sz / 2)
    return Grid(mask.shape, origin, (sx, sy, sz), mask.affine)
