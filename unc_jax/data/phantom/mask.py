"""Real liver masks in the place of drawn livers."""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

from unc_jax.data import nifti
from unc_jax.errors import InputError

_MARGIN_MM = 14.0
_LATTICE_MM = 5.0


class Mask(NamedTuple):
    """Mask of one liver on its grid, which may have been made coarser; RAS+ order.

    `window`: the slices (x, y, z) of the grid that hold the liver and a margin;
    `distance`: signed distance there, mm, float32 (z, y, x).
    """

    shape: tuple[int, int, int]
    affine: np.ndarray
    orientation: str
    window: tuple[slice, slice, slice]
    distance: np.ndarray
    volume_ml: float

    @property
    def spacing_mm(self) -> np.ndarray:
        return np.linalg.norm(self.affine[:3, :3], axis=0)

    def lattice(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns points inside (m, 3), about 5 mm apart, and their depth, grid mm."""
        steps = np.maximum(1, np.round(_LATTICE_MM / self.spacing_mm)).astype(int)
        thinned = self.distance[:: steps[2], :: steps[1], :: steps[0]]
        first = np.array([part.start for part in self.window])
        at = np.argwhere(thinned < 0)[:, ::-1] * steps + first
        return (at + 0.5) * self.spacing_mm, -thinned[thinned < 0]


def mask_files(folder: Path) -> list[Path]:
    """Lists the masks of a folder by number. Raises InputError when there are none."""
    files = [p for p in Path(folder).glob("*.nii*") if not p.name.startswith(".")]
    if not files:
        raise InputError(f"no liver masks (.nii or .nii.gz) in {folder}")
    return sorted(files, key=lambda p: [int(n) for n in re.findall(r"\d+", p.name)])


def read_mask(path: Path, size: tuple[int, int, int] | None) -> Mask:
    """Reads a mask of nonzero voxels; a grid larger than `size` is made coarser.

    The coarser mask takes the fullest voxels, as many as make up the same volume.
    Raises InputError for an empty mask, naming the file.
    """
    scan = nifti.read(path)
    geometry = scan.geometry
    array = np.ascontiguousarray((scan.array > 0).transpose(2, 1, 0))
    native = array.shape[::-1]
    bound = native if size is None else size
    shape = tuple(min(n, m) for n, m in zip(native, bound, strict=True))
    zoom = np.array(native) / np.array(shape)
    affine = geometry.canonical_affine.copy()
    affine[:3, 3] = (affine @ np.append((zoom - 1) / 2, 1))[:3]
    affine[:3, :3] *= zoom
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    share = array
    window = []
    for axis in range(3):
        used = np.flatnonzero(array.any(tuple({0, 1, 2} - {2 - axis})))
        if not len(used):
            raise InputError(f"{path}: no voxel is liver")
        margin = int(np.ceil(_MARGIN_MM / spacing[axis]))
        start = max(0, int(used[0] / zoom[axis]) - margin)
        stop = min(shape[axis], int(used[-1] / zoom[axis]) + 1 + margin)
        window.append(slice(start, stop))
        share = _coarser(share, 2 - axis, zoom[axis], window[-1])
    voxels = int(array.sum()) / float(np.prod(zoom))
    voxel_ml = float(np.prod(spacing)) / 1000
    distance = _signed_distance(share, round(voxels), spacing)
    orientation = "".join(nifti.nib.aff2axcodes(geometry.affine))
    return Mask(shape, affine, orientation, tuple(window), distance, voxels * voxel_ml)


def _coarser(values: np.ndarray, axis: int, zoom: float, part: slice) -> np.ndarray:
    """Averages the old voxels that each new one in `part` covers; edges aligned."""
    values = np.moveaxis(values, axis, -1)
    if zoom == 1:
        return np.moveaxis(values[..., part], -1, axis)
    # Sums up to fractional places, by linear interpolation of the running sum.
    running = np.zeros((*values.shape[:-1], values.shape[-1] + 1), np.float32)
    np.cumsum(values, axis=-1, out=running[..., 1:])
    edges = np.arange(part.start, part.stop + 1) * zoom
    below = np.minimum(edges.astype(int), values.shape[-1] - 1)
    rest = (edges - below).astype(np.float32)
    sums = running[..., below] * (1 - rest) + running[..., below + 1] * rest
    return np.moveaxis(np.diff(sums, axis=-1) / np.float32(zoom), -1, axis)


def _signed_distance(share: np.ndarray, voxels: int, spacing: np.ndarray) -> np.ndarray:
    """Returns the distance, mm, to the edge of the `voxels` fullest voxels."""
    values = share.astype(np.float32)
    threshold = np.partition(values.ravel(), -voxels)[-voxels]
    inside = values >= max(threshold, np.float32(1e-6))
    sampling = spacing[::-1]
    outside = np.asarray(distance_transform_edt(~inside, sampling), np.float32)
    distance = outside - np.asarray(
        distance_transform_edt(inside, sampling), np.float32
    )
    # The transform measures to voxel centres; the edge lies half a voxel nearer.
    half = np.float32(0.5 * spacing.min())
    return distance - np.copysign(half, distance)
