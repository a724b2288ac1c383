"""DICOM series read as scans.

Needs pydicom, for compressed series pylibjpeg too: pip install "unc_jax[dicom]".
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data.dicom_file import coded_size, first_frame, read_dicom
from unc_jax.data.geometry import Geometry, to_canonical
from unc_jax.data.nifti import Scan
from unc_jax.errors import InputError

# Positions are often rounded to 0.1 mm: places are then wrong by half of that, and
# distances of slices by all of it.
_ROUNDED_MM = 0.06
_GAP = 0.05  # largest unevenness of the slices' distance, as a share of it
_MOST_TILT = 45.0  # degrees; gantries reach 30
_MOST_PIXELS = 1 << 26  # of a slice; detectors have 2^18 to 2^22
# Of a series, 4 GB of int16 or 8 GB of float32; 1024 x 1024 x 2000 are as many.
_MOST_VOXELS = 1 << 31
_MOST_CODED = 4  # bytes of a coded voxel; uncompressed ones have 2, of floats 4
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts towards left and back


class Slice(NamedTuple):
    """Place and scale of a slice.

    Attributes:
      row, column: directions in which the column and the row index grow, LPS.
      position: of the first voxel, LPS mm.
      spacing: between rows and between columns, mm.
      scale: slope and intercept of the voxels; None where the file says none.
    """

    path: Path
    row: np.ndarray
    column: np.ndarray
    position: np.ndarray
    spacing: np.ndarray
    size: tuple[int, int]
    scale: tuple[float | None, float | None]


def read_series(files: tuple[Path, ...]) -> Scan:
    """Reads the voxels of one series, rescaled (of CT in HU), canonical order.

    They are int16, or float32 where a value is not whole or no int16, as of PET and MR.
    Slices are sorted along their normal. Those of a tilted gantry make a sheared grid,
    of which the affine tells. Raises InputError, naming a file, for slices that differ
    in size, direction or distance (a missing or doubled one too), for attributes that
    are missing, for colours, and for a compression that no installed decoder reads.
    """
    found, voxels = [], 0
    for path in files:
        one = _read(path)
        place = read_slice(one, path)
        voxels += place.size[0] * place.size[1]
        if voxels > _MOST_VOXELS:
            raise InputError(f"{path}: its series has more than {_MOST_VOXELS} voxels")
        found.append((place, _pixels(one, place)))
    slices = sort_slices([one for one, _ in found])
    pixels = {one.path: plane for one, plane in found}
    affine = _affine(slices)
    array = np.stack([pixels[one.path] for one in slices], axis=-1)
    x, y, z = array.shape  # (columns, rows, slices)
    geometry = Geometry((x, y, z), affine)
    return Scan(to_canonical(array, geometry), geometry)


def read_slice(one: Any, path: Path) -> Slice:
    """Returns the place of a slice, of pydicom's data set; InputError names a gap."""
    directions = _numbers(one, "ImageOrientationPatient", 6, path).reshape(2, 3)
    row, column = directions
    if not np.allclose(directions @ directions.T, np.eye(2), atol=1e-2):
        raise InputError(f"{path}: ImageOrientationPatient is no pair of directions")
    spacing = _numbers(one, "PixelSpacing", 2, path)
    rows, columns = (
        int(_numbers(one, name, 1, path)[0]) for name in ("Rows", "Columns")
    )
    if spacing.min() <= 0 or not 0 < rows * columns <= _MOST_PIXELS:
        raise InputError(f"{path}: {rows} x {columns} voxels of {spacing} mm")
    position = _numbers(one, "ImagePositionPatient", 3, path)
    slope, intercept = (
        None if one.get(name) in (None, "") else float(_numbers(one, name, 1, path)[0])
        for name in ("RescaleSlope", "RescaleIntercept")
    )
    if slope == 0:
        raise InputError(f"{path}: RescaleSlope is 0")
    size, scale = (rows, columns), (slope, intercept)
    return Slice(path, row, column, position, spacing, size, scale)


def sort_slices(slices: list[Slice]) -> list[Slice]:
    """Sorts slices along the normal of the first; InputError where they differ."""
    first = slices[0]
    for one in slices:
        same = one.size == first.size
        for name in ("row", "column", "spacing"):
            same &= np.allclose(getattr(one, name), getattr(first, name), atol=1e-3)
        if not same:
            raise InputError(
                f"{one.path}: differs from its series in size, direction or spacing"
            )
        for value, usual in zip(one.scale, first.scale, strict=True):
            if (value is None) != (usual is None):
                raise InputError(
                    f"{one.path}: only a part of the series says "
                    "RescaleSlope and RescaleIntercept; export it again"
                )
    return sorted(slices, key=lambda one: float(one.position @ _normal(first)))


def _normal(one: Slice) -> np.ndarray:
    return np.cross(one.row, one.column)


def _affine(slices: list[Slice]) -> np.ndarray:
    """Returns the 4x4 affine, (column, row, slice) -> RAS mm, of sorted slices."""
    first = slices[0]
    if len(slices) < 2:
        raise InputError(f"{first.path}: one slice is no volume")
    positions = np.stack([one.position for one in slices])
    _check_gaps(positions @ _normal(first), slices)
    step, origin = _line(positions)
    along = (step @ _normal(first)) * _normal(first)
    drift = np.linalg.norm(step - along)  # within the plane, mm a slice
    if drift * (len(slices) - 1) < 2 * _ROUNDED_MM:
        step = along
    off = np.linalg.norm(
        positions - origin - np.outer(range(len(slices)), step), axis=1
    )
    worst = int(off.argmax())
    tilt = float(np.degrees(np.arctan2(drift, np.linalg.norm(along))))
    if off[worst] > 2 * _ROUNDED_MM + _GAP * np.linalg.norm(step):
        raise InputError(
            f"{slices[worst].path}: lies {off[worst]:.3g} mm beside the line of the "
            "other slices: no tilt of the gantry, but uneven positions"
        )
    if tilt > _MOST_TILT:
        raise InputError(f"{first.path}: its series has a tilt of {tilt:.0f} degrees")
    affine = np.eye(4)
    affine[:3, 0] = first.row * first.spacing[1]  # along a row the column index grows
    affine[:3, 1] = first.column * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, origin
    return _TO_RAS @ affine


def _line(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns step and start of the straight, even line closest to positions (n, 3)."""
    index = np.arange(len(positions)) - (len(positions) - 1) / 2
    middle = positions.mean(0)
    step = index @ (positions - middle) / (index @ index)
    return step, middle + index[0] * step


def _check_gaps(places: np.ndarray, slices: list[Slice]) -> None:
    gaps = np.diff(places)
    usual = float(np.median(gaps))
    odd = np.abs(gaps - usual) > _GAP * usual + min(2 * _ROUNDED_MM, usual / 4)
    if usual <= 0 or odd.any():
        where = int(odd.argmax())
        raise InputError(
            f"{slices[where + 1].path}: lies {gaps[where]:.3g} mm behind the slice "
            f"before, {slices[where].path.name}, the others {usual:.3g} mm; a slice is "
            "missing or doubled"
        )


def _read(path: Path) -> Any:
    try:
        return read_dicom(path)
    except (InputError, OSError):
        raise
    except Exception as error:  # pydicom raises a bit of everything
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: cannot be read ({reason})") from None


def _pixels(one: Any, place: Slice) -> np.ndarray:
    """Decodes a slice, rescaled (columns, rows): int16 if that holds it, or float32."""
    try:
        _check_coded(one, place)
        pixels = one.pixel_array
    except InputError:
        raise
    except Exception as error:  # decoders raise a bit of everything
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{place.path}: voxels cannot be decoded ({reason})") from None
    if pixels.shape != place.size:
        raise InputError(f"{place.path}: has colours or several frames")
    slope, intercept = place.scale
    with np.errstate(all="ignore"):  # what no number holds, the case's checks refuse
        scaled = pixels.astype(np.float32) * (1 if slope is None else slope)
        scaled += np.float32(intercept or 0)
        values = scaled.astype(np.int16)
    return (values if np.array_equal(values, scaled) else scaled).T


def _check_coded(one: Any, place: Slice) -> None:
    """Raises InputError for compressed voxels that a decoder would give much memory.

    Decoders go by what the coded image says of itself, and RLE has no such word: a run
    of two bytes makes up to 128.
    """
    frame, (rows, columns) = first_frame(one), place.size
    said = coded_size(frame)
    if said and said != place.size:
        raise InputError(
            f"{place.path}: its image is coded as {said[0]} x {said[1]} voxels, not "
            f"{rows} x {columns}; export it again"
        )
    if len(frame) > _MOST_CODED * rows * columns + 4096:  # headers and comments
        coded = f"{len(frame)} bytes code {rows} x {columns} voxels"
        raise InputError(
            f"{place.path}: {coded}, more than these have; export it again"
        )


def _numbers(one: Any, name: str, count: int, path: Path) -> np.ndarray:
    """Returns the numbers of an attribute; InputError when they are not all there."""
    try:
        found = np.array(one.get(name), float).reshape(count)
        if np.isfinite(found).all():
            return found
    except (AttributeError, TypeError, ValueError):
        pass
    raise InputError(f"{path}: {name} is missing, empty or no number; export it again")
