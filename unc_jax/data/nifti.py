"""NIfTI scans: canonical RAS+ on reading, the scan's own grid again on writing."""

import contextlib
import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import nibabel as nib
import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, ornt_transform
from nibabel.spatialimages import HeaderDataError

from unc_jax.data.files import replacing
from unc_jax.errors import InputError

_BLOCK_BYTES = 1 << 24
# Where the voxels lie, kept verbatim: deriving it anew would round at each passage.
_FIELDS = ("xyzt_units", "pixdim", "qform_code", "quatern_b", "quatern_c", "quatern_d")
_FIELDS += ("qoffset_x", "qoffset_y", "qoffset_z", "sform_code")
_FIELDS += ("srow_x", "srow_y", "srow_z")


@dataclass(frozen=True)
class Geometry:
    """Where a scan's voxels lie, in the scan's own axis order.

    `shape` and 4x4 `affine` (voxel -> RAS mm) belong to the scan as stored; canonical_*
    and `spacing_mm` to its RAS+ order. `fields` are header values, verbatim; without
    them (a grid made here) the affine is rounded to the float32 a header holds.
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
        """(3, 2): canonical axis of each scan axis, and -1 where it is flipped."""
        return nib.orientations.io_orientation(self.affine)

    @property
    def canonical_shape(self) -> tuple[int, int, int]:
        x, y, z = np.argsort(self.orientation[:, 0])
        return self.shape[x], self.shape[y], self.shape[z]

    @property
    def canonical_affine(self) -> np.ndarray:
        """4x4, RAS+ voxel -> RAS mm. Oblique grids are reordered, not resampled."""
        return self.affine @ inv_ornt_aff(self.orientation, self.shape)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along the canonical axes, mm."""
        x, y, z = np.linalg.norm(self.canonical_affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, ml (1 ml = 1000 mm^3)."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def to_json(self) -> dict[str, Any]:
        """Plain lists and numbers; `from_json` gives back an equal geometry."""
        return {**vars(self), "shape": [*self.shape], "affine": self.affine.tolist()}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "Geometry":
        return Geometry(**value)


class Scan(NamedTuple):
    """`array` is (x, y, z) in RAS+ order, a view of the stored order (no copy)."""

    array: np.ndarray
    geometry: Geometry


def read(path: Path, *, labels: bool = False) -> Scan:
    """Reads (x, y, z) or (x, y, z, 1) voxels, .nii or .nii.gz, to the end of the file.

    Integers keep their stored type, 64-bit ones become int32. Floats, and voxels with
    a slope or intercept, become float32; NaN and Inf pass. With `labels` the array is
    uint8: values within 1e-3 of a whole number from 0 to 255 are rounded, any other
    (NaN too) is an InputError. Peak memory: the array and a few blocks of 16 MB.
    Raises InputError, naming the file, when it is missing, truncated, fails its gzip
    checksum, is no NIfTI file, has colours or complex numbers, or other dimensions.
    """
    with _opened(path := Path(path)) as stream:
        header, geometry = _header(stream, path)
        stored, (slope, inter) = header.get_data_dtype(), header.get_slope_inter()
        scaled = slope is not None and (slope, inter) != (1, 0)
        dtype = stored.newbyteorder("=")
        if scaled or dtype.kind == "f":
            dtype = np.dtype(np.float32)
        elif dtype.itemsize == 8:  # a careless export; gigabytes at CT size
            dtype = np.dtype(np.int32)
        array = np.empty(geometry.shape, np.uint8 if labels else dtype, order="F")
        stream.read(header.get_data_offset() - 348)
        for slab in _slabs(geometry.shape, stored):
            target = array[..., slab]
            content = stream.read(target.size * stored.itemsize)
            if len(content) < target.size * stored.itemsize:
                raise EOFError
            block = np.frombuffer(content, stored).reshape(target.shape, order="F")
            values = _cast(block, dtype, path)
            if scaled:
                values = values * np.float32(slope) + np.float32(inter)
            values = _whole(values, path) if labels and dtype.kind == "f" else values
            target[...] = _cast(values, array.dtype, path)
        # The checksum lies behind the voxels and is compared only when it is reached.
        while stream.read(_BLOCK_BYTES):
            pass
    return Scan(to_canonical(array, geometry), geometry)


def read_geometry(path: Path) -> Geometry:
    """Reads the header only; raises InputError where `read` would refuse the header."""
    with _opened(Path(path)) as stream:
        return _header(stream, Path(path))[1]


def write(path: Path, array_ras: np.ndarray, geometry: Geometry, dtype: Any) -> None:
    """Writes a canonical (x, y, z) array on the scan's own grid, whole or not at all.

    `dtype` is uint8, int16 or float32; the header holds the scan's affine and form
    codes and no text. The same input gives the same bytes (no time stamp).
    Raises ValueError for another shape or type, or values that `dtype` cannot hold.
    """
    path, kept = Path(path), np.dtype(dtype)
    if kept.name not in ("uint8", "int16", "float32"):
        raise ValueError(f"dtype {kept}: uint8, int16 or float32 can be written")
    stored = to_scan_order(np.asarray(array_ras), geometry)
    if stored.shape != geometry.shape:
        raise ValueError(f"{path}: shape {stored.shape} is not {geometry.shape}")
    header = nib.Nifti1Header()
    header.set_data_shape(geometry.shape)
    header.set_data_dtype(kept)
    for name, value in geometry.fields.items():
        header[name] = value
    header["vox_offset"], header["scl_slope"], header["scl_inter"] = 352, 1, 0
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(replacing(path))
        stream = stack.enter_context(open(temporary, "wb"))
        if path.suffix == ".gz":
            stream = stack.enter_context(gzip.GzipFile("", "wb", 1, stream, mtime=0))
        stream.write(header.binaryblock + bytes(4))
        for slab in _slabs(geometry.shape, kept):
            stream.write(_cast(stored[..., slab], kept, path).tobytes(order="F"))


def to_canonical(array: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Scan order (x, y, z, ...) -> RAS+ order, as a view. Inverse of to_scan_order."""
    return apply_orientation(array, geometry.orientation)


def to_scan_order(array_ras: np.ndarray, geometry: Geometry) -> np.ndarray:
    """RAS+ order (x, y, z, ...) -> scan order, as a view. Inverse of to_canonical."""
    ras = np.array([[0, 1], [1, 1], [2, 1]])
    return apply_orientation(array_ras, ornt_transform(ras, geometry.orientation))


def _slabs(shape: tuple[int, int, int], dtype: np.dtype) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (shape[0] * shape[1] * dtype.itemsize))
    return (slice(start, start + step) for start in range(0, shape[2], step))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The unpacked bytes, told by content, not by name; damage is an InputError."""
    try:
        with open(path, "rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            yield cast(BinaryIO, unpacked if packed else raw)
        return
    except InputError:
        raise
    except FileNotFoundError:
        cause = "no such file"
    except EOFError:
        cause = "truncated; copy or download it again"
    except (gzip.BadGzipFile, zlib.error) as error:
        cause = f"damaged gzip ({error}); copy or download it again"
    except (HeaderDataError, OSError, MemoryError, ValueError) as error:
        cause = f"cannot be read ({' '.join(str(error).split()) or 'out of memory'})"
    raise InputError(f"{path}: {cause}")


def _header(stream: BinaryIO, path: Path) -> tuple[Any, Geometry]:
    start = stream.read(348)
    if not nib.Nifti1Header.may_contain_header(start) or start[344:346] != b"n+":
        raise InputError(f"{path}: not a NIfTI-1 file; save it as one .nii.gz")
    header: Any = nib.Nifti1Header(start)
    if header.get_data_dtype().kind not in "iuf":
        kind = header.get_value_label("datatype")
        raise InputError(f"{path}: voxels are {kind}; save one real number per voxel")
    shape = header.get_data_shape()
    shape = shape[:3] if shape[3:] == (1,) else shape
    if len(shape) != 3 or min(shape) < 1:
        raise InputError(f"{path}: shape {shape}; it must be (x, y, z) or (x, y, z, 1)")
    with np.errstate(all="ignore"):
        affine = np.asarray(header.get_best_affine())
        sides = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        solid = np.isfinite(affine).all() and abs(np.linalg.det(sides)) > 1e-4
    if not solid:
        raise InputError(f"{path}: its affine spans no volume; mend sform or qform")
    return header, Geometry(shape, affine, _fields(header))


def _fields(header: Any) -> dict[str, Any]:
    # A form that is switched off may hold NaN or Inf, which JSON has no word for.
    values = ((name, np.asarray(header[name])) for name in _FIELDS)
    return {name: np.where(np.isfinite(v), v, 0).tolist() for name, v in values}


def _fields_for(affine: np.ndarray) -> dict[str, Any]:
    header: Any = nib.Nifti1Header()
    header.set_xyzt_units("mm")
    header.set_sform(affine, code=1)
    header.set_qform(affine, code=1)
    # A qform is a rotation: it cannot say a sheared grid, and is left off there.
    header["qform_code"] = int(np.allclose(header.get_qform(), affine, atol=1e-3))
    return _fields(header)


def _cast(block: np.ndarray, dtype: np.dtype, path: Path) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        values = block.astype(dtype, copy=False)
    if dtype.kind != "f" and not np.array_equal(values, block):
        raise InputError(f"{path}: holds values that {dtype} cannot")
    return values


def _whole(values: np.ndarray, path: Path, tolerance: float = 1e-3) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        rounded = np.clip(np.rint(values), 0, 255)
        wrong = ~(np.abs(values - rounded) <= tolerance)
    if wrong.any():
        raise InputError(f"{path}: label {values[wrong][0]} is not one of 0, 1, .. 255")
    return rounded
