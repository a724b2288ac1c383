"""Reads NIfTI scans in canonical RAS+ order and writes maps on the scan's own grid."""

import contextlib
import gzip
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError

from unc_jax.data.files import regular, replacing
from unc_jax.data.geometry import (
    Geometry,
    header_fields,
    in_mm,
    spans_volume,
    to_canonical,
    to_scan_order,
)
from unc_jax.errors import InputError

ENDINGS = (".nii.gz", ".nii", ".hdr")
_BLOCK_BYTES = 1 << 24
_LONG_QUATERNION = 1.001  # largest length after rounding to three digits
_WHOLE = 1e-3  # largest difference of a label from a whole number
_LONGEST_SIDE = 32767  # int16 in the NIfTI-1 header that `write` makes


class Volume(NamedTuple):
    """Voxels (x, y, z) in RAS+ order, a view of the stored order, and their grid."""

    array: np.ndarray
    geometry: Geometry


def files_of(path: Path) -> tuple[Path, ...]:
    """Returns the files of a scan: itself, or header and voxels of a .hdr/.img pair."""
    if path.suffix in (".hdr", ".img"):
        return path.with_suffix(".hdr"), path.with_suffix(".img")
    return (path,)


def read(path: Path, *, labels: bool = False) -> Volume:
    """Reads a NIfTI-1 or NIfTI-2 scan, (x, y, z) or (x, y, z, 1), to its file's end.

    Integers keep their stored type; 64-bit integers become int32. Floats, and voxels
    with a slope or intercept, become float32; NaN and Inf are kept. With `labels` the
    array is uint8: values within 1e-3 of a whole number from 0 to 255 are rounded,
    others (also NaN) raise InputError. Peak memory: the array and a few blocks of
    16 MB. Raises InputError that names the file when it is missing, truncated, fails
    its gzip checksum, is not a NIfTI file, has colours or complex numbers, or has other
    dimensions.
    """
    (scan,) = _volumes(Path(path), labels=labels)
    return scan


def read_volumes(path: Path) -> Iterator[Volume]:
    """Reads the volumes of a file (x, y, z, n), one after the other, each as `read`.

    A file (x, y, z) has one volume. Damage may be detected only after the last.
    """
    return _volumes(Path(path), several=True)


def _volumes(
    path: Path, *, labels: bool = False, several: bool = False
) -> Iterator[Volume]:
    with _opened(files_of(path)[-1]) as stream:
        header, geometry, count = _read_header(path, several)
        stored, (slope, inter) = header.get_data_dtype(), header.get_slope_inter()
        scaled = slope is not None and (slope, inter) != (1, 0)
        dtype = stored.newbyteorder("=")
        if scaled or dtype.kind == "f":
            dtype = np.dtype(np.float32)
        elif dtype.itemsize == 8:  # 64-bit integers would be gigabytes at CT size
            dtype = np.dtype(np.int32)
        stream.seek(header.get_data_offset())
        for _ in range(count):
            array = np.empty(geometry.shape, np.uint8 if labels else dtype, order="F")
            for slab in _slabs(geometry.shape, stored):
                target = array[..., slab]
                content = stream.read(target.size * stored.itemsize)
                if len(content) < target.size * stored.itemsize:
                    raise EOFError
                block = np.frombuffer(content, stored).reshape(target.shape, order="F")
                values = _cast(block, dtype, path)
                if scaled:
                    values = values * np.float32(slope) + np.float32(inter)
                if labels and dtype.kind == "f":
                    values = _whole(values, path)
                target[...] = _cast(values, array.dtype, path)
            yield Volume(to_canonical(array, geometry), geometry)
        # The gzip checksum follows the voxels and is verified only when it is read.
        while stream.read(_BLOCK_BYTES):
            pass


def read_geometry(path: Path) -> Geometry:
    """Reads only the header; raises InputError if `read` would refuse it."""
    return _read_header(Path(path))[1]


def largest_grid(paths: Sequence[Path]) -> int:
    """Returns the voxels of the largest scan whose header can be read, 0 for none."""
    sizes = [0]
    for path in paths:
        with contextlib.suppress(InputError):
            sizes.append(math.prod(read_geometry(path).shape))
    return max(sizes)


def write(path: Path, array_ras: np.ndarray, geometry: Geometry, dtype: Any) -> None:
    """Writes a canonical (x, y, z) array on the scan's own grid, atomically.

    `dtype` is uint8, int16 or float32; the header is NIfTI-1 with the scan's affine
    and form codes, without text. The same input gives the same bytes (no time stamp).
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


def _slabs(shape: tuple[int, int, int], dtype: np.dtype) -> Iterator[slice]:
    step = max(1, _BLOCK_BYTES // (shape[0] * shape[1] * dtype.itemsize))
    return (slice(start, start + step) for start in range(0, shape[2], step))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Opens a file, decompressing gzip; damage raises InputError."""
    try:
        with open(regular(path), "rb") as raw, gzip.GzipFile(fileobj=raw) as unpacked:
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
    except (HeaderDataError, OSError, MemoryError, OverflowError, ValueError) as error:
        cause = f"cannot be read ({' '.join(str(error).split()) or 'out of memory'})"
    raise InputError(f"{path}: {cause}")


def _read_header(path: Path, several: bool = False) -> tuple[Any, Geometry, int]:
    """Reads a header (nibabel's), its geometry and the number of volumes.

    Raises InputError for unsupported headers and, without `several`, for more than one
    volume.
    """
    files = files_of(path)
    with _opened(files[0]) as stream:
        start = stream.read(nib.Nifti2Header.sizeof_hdr)
        kinds = (nib.Nifti1Header, nib.Nifti2Header)
        kind = next((k for k in kinds if k.may_contain_header(start)), None)
        header: Any = kind and kind(start[: kind.sizeof_hdr])
        magic = kind and (kind.single_magic, kind.pair_magic)[len(files) - 1]
        if not kind or header["magic"] != magic:
            raise InputError(f"{path}: not a NIfTI file; save it as one .nii.gz")
        if len(files) == 1 and header["vox_offset"] == 0:  # short for "as usual"
            header["vox_offset"] = kind.single_vox_offset
        if header.get_data_dtype().kind not in "iuf":
            name = header.get_value_label("datatype")
            raise InputError(f"{path}: voxels are {name}; save one real number each")
        shape = header.get_data_shape()
        shape, further = shape[:3], shape[3:]
        fits = len(further) < 2 if several else further in ((), (1,))
        sides = (*shape, *further)
        if (
            len(shape) < 3
            or not fits
            or not 1 <= min(sides) <= max(sides) <= _LONGEST_SIDE
        ):
            shape, wanted = sides, f"(x, y, z) or (x, y, z, {'n' if several else 1})"
            raise InputError(f"{path}: shape {shape}; it must be {wanted}")
        # nibabel has replaced a size of 0 by 1 mm.
        sizes = kind(start[: kind.sizeof_hdr], check=False)["pixdim"][1:4]
        if header["sform_code"] <= 0 and not np.all(np.abs(sizes) > 0):  # nor NaN
            raise InputError(f"{path}: a voxel has size 0; correct pixdim or set sform")
        _shorten_quaternion(header)
        with np.errstate(all="ignore"):
            affine = in_mm(header.get_best_affine(), header)
        if not spans_volume(affine):
            raise InputError(
                f"{path}: its affine is singular (it spans no volume); correct sform "
                "or qform"
            )
        geometry = Geometry(shape, affine, header_fields(header))
        return header, geometry, math.prod(further)


def _shorten_quaternion(header: Any) -> None:
    """Normalises a quaternion that is slightly too long, as some writers round it.

    For a rotation by 180 degrees b, c and d have length 1, and rounding may exceed it.
    """
    names = ("quatern_b", "quatern_c", "quatern_d")
    length = np.linalg.norm([float(header[name]) for name in names])
    if 1 < length < _LONG_QUATERNION:
        for name in names:
            header[name] = header[name] / length


def _cast(block: np.ndarray, dtype: np.dtype, path: Path) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        values = block.astype(dtype, copy=False)
    if dtype.kind != "f" and not np.array_equal(values, block):
        raise InputError(f"{path}: holds values that {dtype} cannot represent")
    return values


def _whole(values: np.ndarray, path: Path) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        rounded = np.clip(np.rint(values), 0, 255)
        wrong = ~(np.abs(values - rounded) <= _WHOLE)
    if wrong.any():
        raise InputError(f"{path}: label {values[wrong][0]} is not one of 0, 1, .. 255")
    return rounded
