"""Grids of scans: canonical RAS+ order, and the scan's own order and header values."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt_transform
from nibabel.spatialimages import HeaderDataError

_TILT_DEGREES = 0.1  # smaller shears are within rounding
# Share of the smallest voxel side. Headers of the same grid differ by less, even at the
# far corner of a CT: by 1e-4 mm from float32, by up to 0.01 mm from quaternions.
_GRID_SHARE = 0.05
_LEAST_VOLUME = 1e-4  # of the box of three unit vectors along the axes

# Header values that define the grid. They are kept verbatim, because deriving them from
# the affine would round each time.
_FIELDS = ("xyzt_units", "pixdim", "qform_code", "quatern_b", "quatern_c", "quatern_d")
_FIELDS += ("qoffset_x", "qoffset_y", "qoffset_z", "sform_code")
_FIELDS += ("srow_x", "srow_y", "srow_z")
_UNITS_MM = {1: 1000.0, 3: 0.001}  # metre and micron, of NIfTI's codes; others are mm


@dataclass(frozen=True)
class Geometry:
    """The grid of a scan: shape and position of its voxels.

    `shape` and 4x4 `affine` (voxel -> RAS mm) are in the order of the file;
    `canonical_*` and `spacing_mm` in RAS+ order. `fields` are verbatim header values in
    the header's own unit; without them (a new grid, in mm) the affine is rounded to
    float32 as in a header.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray = field(compare=False)  # follows from `fields`
    fields: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = np.float64 if self.fields else np.float32
        affine = np.array(self.affine, kept).astype(np.float64)
        affine.flags.writeable = False
        shape, fields = tuple(map(int, self.shape)), self.fields or _fields_for(affine)
        vars(self).update(shape=shape, affine=affine, fields=fields)

    @property
    def orientation(self) -> np.ndarray:
        """Returns the canonical axis of each scan axis, and -1 if flipped, (3, 2)."""
        return nib.orientations.io_orientation(self.affine)

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        """Returns the numbers of voxels along the canonical axes."""
        x, y, z = np.argsort(self.orientation[:, 0])
        return self.shape[x], self.shape[y], self.shape[z]

    @property
    def canonical_affine(self) -> np.ndarray:
        """Returns the 4x4 affine, RAS+ voxel -> RAS mm.

        Oblique grids are reordered, not resampled.
        """
        return self.affine @ inv_ornt_aff(self.orientation, self.shape)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Returns the size of a voxel along the canonical axes, mm."""
        x, y, z = np.linalg.norm(self.canonical_affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def voxel_ml(self) -> float:
        """Returns the volume of one voxel, ml (1 ml = 1000 mm^3)."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def to_json(self) -> dict[str, Any]:
        """Returns plain lists and numbers, which `from_json` converts back."""
        return {**vars(self), "shape": [*self.shape], "affine": self.affine.tolist()}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Geometry":
        """Returns the grid that `to_json` described."""
        return Geometry(**value)


def to_canonical(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Returns a view in RAS+ order of an array (x, y, z, ...) in scan order."""
    return apply_orientation(array, geometry.orientation)


def to_scan_order(array_ras: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Returns a view in scan order of an array (x, y, z, ...) in RAS+ order."""
    ras = np.array([[0, 1], [1, 1], [2, 1]])
    return apply_orientation(array_ras, ornt_transform(ras, geometry.orientation))


def spans_volume(affine: np.ndarray) -> bool:
    """Tells whether a 4x4 affine is finite, and its three axes span a volume."""
    with np.errstate(all="ignore"):
        sides = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        solid = abs(np.linalg.det(sides)) > _LEAST_VOLUME
    placed = np.array_equal(affine[3], [0, 0, 0, 1])
    return bool(np.isfinite(affine).all() and solid and placed)


def voxels_apart(grid: Geometry, other: Geometry) -> float:
    """Returns how far `other` lies from `grid`, two grids of one canonical shape.

    The largest offset of a corner along an axis, in voxels of `grid`: offsets are
    largest in a corner, where a slightly wrong spacing has added up.
    """
    last = np.array(grid.canonical_shape) - 1
    corners = np.c_[np.array(list(np.ndindex(2, 2, 2))) * last, np.ones(8)].T
    moved = np.linalg.solve(grid.canonical_affine, other.canonical_affine @ corners)
    return float(np.abs(moved - corners).max())


def same_grid(one: Geometry, other: Geometry) -> bool:
    """Tells whether two grids are the same, whatever the order of their voxels.

    Their eight corners may differ by a twentieth of the smallest voxel side; points in
    between differ by less.
    """
    if one.canonical_shape != other.canonical_shape:
        return False
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(one.canonical_shape) - 1)
    moved = (one.canonical_affine - other.canonical_affine) @ np.c_[corners, [1] * 8].T
    apart = np.linalg.norm(moved[:3], axis=0).max()
    return bool(apart <= _GRID_SHARE * min(one.spacing_mm))


def header_notes(geometry: Geometry) -> Iterator[str]:
    """Yields what makes the geometry of a scan's or a mask's header doubtful."""
    if geometry.fields["sform_code"] == 0 and geometry.fields["qform_code"] == 0:
        yield "no geometry in the header: spacing and sides are a guess"
    yield from geometry_notes(geometry)


def geometry_notes(geometry: Geometry) -> Iterator[str]:
    """Yields a note for a sheared grid, and for a contradiction of sform and qform."""
    sides = geometry.affine[:3, :3] / np.linalg.norm(geometry.affine[:3, :3], axis=0)
    cosine = float(np.abs(np.triu(sides.T @ sides, 1)).max())
    tilt = float(np.degrees(np.arcsin(min(cosine, 1.0))))
    if tilt > _TILT_DEGREES:
        yield (
            f"sheared by {tilt:.1f} degrees, as by a gantry tilt: the sform tells, a "
            "reader of the qform alone would misplace it"
        )
    codes = geometry.fields["sform_code"], geometry.fields["qform_code"]
    if min(codes) > 0:
        with np.errstate(invalid="ignore"):  # of a quaternion that is no rotation
            qform = _qform(geometry)
        known = bool(np.isfinite(qform).all())
        apart = np.where(known, qform, 0.0) - geometry.affine
        corners = np.array(list(np.ndindex(2, 2, 2))) * np.array(geometry.shape)
        moved = np.c_[corners, np.ones(8)] @ apart.T
        furthest = float(np.linalg.norm(moved[:, :3], axis=1).max())
        if not known:
            yield "the qform is no rotation; the sform is used"
        elif furthest > min(geometry.spacing_mm) / 2:
            yield (
                f"sform and qform contradict each other by {furthest:.3g} mm; the "
                "sform is used"
            )


def _qform(geometry: Geometry) -> np.ndarray:
    header: Any = nib.Nifti1Header()
    for name, value in geometry.fields.items():
        header[name] = value
    try:
        return in_mm(header.get_qform(), header)
    except (HeaderDataError, ValueError):
        return np.full((4, 4), np.inf)  # no rotation


def in_mm(affine: np.ndarray, header: Any) -> np.ndarray:
    """Returns a 4x4 affine in mm; a header may be in metres or microns.

    An unknown or missing unit is taken as mm.
    """
    unit = int(header["xyzt_units"]) & 7  # the other bits are the unit of time
    return np.diag([*[_UNITS_MM.get(unit, 1.0)] * 3, 1.0]) @ affine


def header_fields(header: Any) -> dict[str, Any]:
    """Returns the fields that define the grid, in the types of NIfTI-1, for JSON."""
    kept = nib.Nifti1Header()
    with np.errstate(over="ignore"):
        for name in _FIELDS:
            kept[name] = header[name]
    # An unused form may hold NaN or Inf, which JSON lacks.
    return {n: np.where(np.isfinite(kept[n]), kept[n], 0).tolist() for n in _FIELDS}


def _fields_for(affine: np.ndarray) -> dict[str, Any]:
    header: Any = nib.Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    # A qform is a rotation and cannot represent a sheared grid; it is then left out.
    header["qform_code"] = int(np.allclose(header.get_qform(), affine, atol=1e-3))
    return header_fields(header)
