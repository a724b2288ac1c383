"""Single DICOM files, by pydicom, which not everybody has installed."""

import contextlib
import importlib
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any, BinaryIO

from unc_jax.errors import InputError

_NO_PYDICOM = "DICOM files need pydicom: pip install pydicom pylibjpeg-openjpeg"
_ENDINGS = (".dcm", ".dic", ".dicom", ".ima")
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_LARGEST = 1 << 26  # bytes that a deflated file may unpack to; a slice has 2^19 to 2^25
_UNDEFINED = 0xFFFFFFFF  # length of compressed voxels, which say themselves
_VOXELS = 0x7FE0  # group
_FRAME_HEADERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF markers


def load_library(name: str, missing: str) -> Any:
    """Imports a library that not everybody needs; InputError(missing) without it."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(missing) from None


def load_pydicom() -> Any:
    """Returns the library that DICOM files need; InputError says how to get it."""
    return load_library("pydicom", _NO_PYDICOM)


def is_dicom(path: Path) -> bool:
    """Tells whether a file begins as DICOM does, with its preamble or without."""
    with open(path, "rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    # Group 2 or 8, then a type of value in capitals or a length below 65536.
    kind = start[4:6]
    typed = kind.isalpha() and kind.isupper()
    return start[:2] in (b"\2\0", b"\10\0") and (typed or start[6:8] == b"\0\0")


def was_dicom(path: Path) -> bool:
    """Tells whether a file without DICOM in it looks like what is left of a slice."""
    if path.suffix.lower() in _ENDINGS:
        return True
    with open(path, "rb") as file:
        return has_slice_name(path) and not any(file.read(128))


def has_slice_name(path: Path) -> bool:
    """Tells whether a name is like a slice's: by its ending, a number, or neither."""
    suffix = path.suffix[1:]
    return path.suffix.lower() in _ENDINGS or not suffix or suffix.isdecimal()


def read_dicom(path: Path) -> Any:
    """Reads a whole file; one without a preamble too, as old archives write them.

    Raises InputError for a deflated file that unpacks to more than a slice can have,
    and pydicom's errors of many kinds for a damaged one.
    """
    pydicom = load_pydicom()
    with _opened(path) as file:
        return pydicom.dcmread(file, force=True)


def read_header(path: Path, tags: list[str]) -> tuple[Any, bool]:
    """Reads `tags` before the voxels; also tells whether all voxels are there.

    Raises as `read_dicom` does.
    """
    ends: list[int] = []
    with _opened(path) as file:
        deflated = _is_deflated(file)

        def at_voxels(tag: Any, _: Any, length: int) -> bool:
            if tag.group == _VOXELS:
                # Of a deflated file, pydicom reads a copy in memory.
                known = not deflated and length != _UNDEFINED
                ends.append(file.tell() + length if known else 0)
            return tag.group == _VOXELS

        wanted = [load_pydicom().tag.Tag(name) for name in tags]
        header = _reader().read_partial(
            file, at_voxels, force=True, specific_tags=wanted
        )
    return header, bool(ends) and ends[0] <= path.stat().st_size


def first_frame(one: Any) -> bytes:
    """Returns the first image of compressed voxels as it is coded; b"" of others."""
    syntax = one.file_meta.get("TransferSyntaxUID")
    if not (syntax and syntax.is_encapsulated):
        return b""
    encaps = importlib.import_module("pydicom.encaps")
    return next(encaps.generate_frames(one.PixelData, number_of_frames=1))


def coded_size(frame: bytes) -> tuple[int, int] | None:
    """Returns the rows and columns that a coded image declares; None if it does not.

    JPEG 2000 does in its marker SIZ (ISO 15444-1, A.5.1), JPEG and JPEG-LS in their
    frame header (ISO 10918-1, B.2.2; ISO 14495-1, C.2.2).
    """
    siz = frame.find(b"\xff\x4f\xff\x51")
    if siz == 0 or frame[4:6] == b"jP":
        right, bottom, left, top = struct.unpack_from(">4I", frame, siz + 8)
        return bottom - top, right - left
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 9 <= len(frame):
        kind, length = struct.unpack_from(">xBH", frame, at)
        if kind in _FRAME_HEADERS:
            return struct.unpack_from(">2H", frame, at + 5)
        at += 2 + length
    return None


@contextlib.contextmanager
def _opened(path: Path) -> Any:
    with open(path, "rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on values that break the standard
        if _is_deflated(file):
            _check_size(file, path)
        yield file


def _is_deflated(file: BinaryIO) -> bool:
    start = file.read(1024)
    file.seek(0)
    return _DEFLATED in start


def _check_size(file: BinaryIO, path: Path) -> None:
    """Unpacks a deflated file as far as allowed; pydicom would without end."""
    _reader().read_preamble(file, True)
    _reader()._read_file_meta_info(file)
    unpacking, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with contextlib.suppress(zlib.error):  # said by pydicom
        while packed := unpacking.unconsumed_tail or file.read(1 << 16):
            size += len(unpacking.decompress(packed, 1 << 20))
            if size > _LARGEST:
                limit = f"{_LARGEST >> 20} MB, which no slice has"
                raise InputError(f"{path}: unpacks to more than {limit}")
    file.seek(0)


def _reader() -> Any:
    return importlib.import_module("pydicom.filereader")
