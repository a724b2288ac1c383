"""DICOM series read as scans.

Needs pydicom, for compressed series pylibjpeg too: pip install "unc_jax[dicom]".
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data.dicom_file import coded_size, first_frame, read_dicom
from unc_jax.data.geometry import Geometry, to_canonical
from unc_jax.data.nifti import Volume
from unc_jax.errors import InputError

# Positions are often rounded to 0.1 mm: they are then wrong by up to half of that, and
# distances between slices by up to all of it.
_ROUNDED_MM = 0.06
_GAP = 0.05  # largest deviation of the slice distance, as a share of it
_MOST_TILT = 45.0  # degrees; gantries reach 30
_MOST_PIXELS = 1 << 26  # per slice; detectors have 2^18 to 2^22
# Per series: 4 GB of int16 or 8 GB of float32, as in 1024 x 1024 x 2000 voxels.
_MOST_VOXELS = 1 << 31
_MOST_CODED = 4  # bytes per coded voxel; uncompressed ones have 2, floats 4
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM axes point to the left and back


class Slice(NamedTuple):
    """Position and scale of a slice.

    Attributes:
      row, column: directions in which the column and the row index grow, LPS.
      position: of the first voxel, LPS mm.
      spacing: between rows and between columns, mm.
      scale: slope and intercept of the voxels; None if the file has none.
    """

    path: Path
    row: np.ndarray
    column: np.ndarray
    position: np.ndarray
    spacing: np.ndarray
    size: tuple[int, int]
    scale: tuple[float | None, float | None]


def read_series(files: tuple[Path, ...]) -> Volume:
    """Reads the voxels of one series, rescaled (CT in HU), in canonical order.

    They are int16, or float32 if a value is no whole number within int16, as in PET and
    MR. Slices are sorted along their normal; a tilted gantry gives a sheared grid,
    which the affine describes. Raises InputError that names a file for slices that
    differ in size, direction or distance (also a missing or duplicated slice), missing
    attributes, colours, and a compression that no installed decoder reads.
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
    return Volume(to_canonical(array, geometry), geometry)


def read_slice(one: Any, path: Path) -> Slice:
    """Returns position and scale of a slice from pydicom's data set.

    Raises InputError for a missing or invalid attribute.
    """
    directions = _numbers(one, "ImageOrientationPatient", 6, path).reshape(2, 3)
    if not np.allclose(directions @ directions.T, np.eye(2), atol=1e-2):
        raise InputError(
            f"{path}: ImageOrientationPatient is not two orthogonal unit vectors"
        )
    # Rounded to two decimals they are up to 1 % too long or too short.
    row, column = directions / np.linalg.norm(directions, axis=1, keepdims=True)
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
    """Sorts slices along the normal of the first; InputError if they do not match."""
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
                    f"{one.path}: only some slices of the series have RescaleSlope and "
                    "RescaleIntercept; export it again"
                )
    return sorted(slices, key=lambda one: float(one.position @ _normal(first)))


def _normal(one: Slice) -> np.ndarray:
    return np.cross(one.row, one.column)


def _affine(slices: list[Slice]) -> np.ndarray:
    """Returns the 4x4 affine, (column, row, slice) -> RAS mm, of sorted slices."""
    first = slices[0]
    if len(slices) < 2:
        raise InputError(f"{first.path}: one slice is not a volume")
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
            "other slices: uneven positions, not a gantry tilt"
        )
    if tilt > _MOST_TILT:
        raise InputError(
            f"{first.path}: its series has a gantry tilt of {tilt:.0f} degrees, more "
            f"than {_MOST_TILT:g}"
        )
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
            f"{slices[where + 1].path}: lies {gaps[where]:.3g} mm from the slice "
            f"before, {slices[where].path.name}, the others {usual:.3g} mm; a slice is "
            "missing or duplicated"
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
        raise InputError(f"{place.path}: is a colour or multi-frame image")
    slope, intercept = place.scale
    with np.errstate(all="ignore"):  # what no number holds, the case's checks refuse
        scaled = pixels.astype(np.float32) * (1 if slope is None else slope)
        scaled += np.float32(intercept or 0)
        values = scaled.astype(np.int16)
    return (values if np.array_equal(values, scaled) else scaled).T


def _check_coded(one: Any, place: Slice) -> None:
    """Raises InputError for compressed voxels that would decode to too much memory.

    Decoders trust the size in the coded image; RLE states none, and a run of two bytes
    decodes to up to 128.
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
        raise InputError(f"{place.path}: {coded}, too many; export it again")


def _numbers(one: Any, name: str, count: int, path: Path) -> np.ndarray:
    """Returns the numbers of an attribute; InputError if any is missing or invalid."""
    try:
        found = np.array(one.get(name), float).reshape(count)
        if np.isfinite(found).all():
            return found
    except (AttributeError, TypeError, ValueError):
        pass
    raise InputError(
        f"{path}: {name} is missing, empty or not a number; export it again"
    )
