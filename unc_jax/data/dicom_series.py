"""DICOM series among files, sorted by patient, study and series; no file is lost.

A file that is no slice of a volume is passed over with a reason. One that should be a
slice but cannot be read spoils the series it belongs to: a shorter scan would go
unnoticed.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from unc_jax.data import dicom_file
from unc_jax.errors import counted

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CT, _MR, _PET = _STORAGE + "2", _STORAGE + "4", _STORAGE + "128"
_CAPTURE = _STORAGE + "7"  # a slice that was processed, or a picture of a screen
# Enhanced CT, MR and PET, and those converted from slices.
_ENHANCED = [_STORAGE + n for n in ("2.1", "4.1", "130", "2.2", "4.4", "128.1")]
_TAGS = ["SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID"]
_TAGS += ["SeriesInstanceUID", "SeriesNumber", "ImageType", "NumberOfFrames"]
_TAGS += ["ImagePositionPatient", "ImageOrientationPatient"]
_TAGS += ["RescaleSlope", "RescaleIntercept"]
_SHOWN = 3  # names of files in a message
_DAMAGED = "damaged"  # in place of a series' identifier
_Identity = tuple[str, str, str]


class PassedOver(NamedTuple):
    """A file that is neither a scan nor a part of one."""

    path: Path
    reason: str


class Series(NamedTuple):
    """A series of slices.

    Attributes:
      identity: patient, study and series, which no other series shares.
      name: of people, PATIENT_SERIES.
      problem: why it cannot be used; "" if it can, as far as headers tell.
      warnings: what was assumed.
    """

    identity: tuple[str, str, str]
    name: str
    files: tuple[Path, ...]
    problem: str = ""
    warnings: tuple[str, ...] = ()

    @property
    def readable(self) -> bool:
        """Tells whether any of its files is whole."""
        return self.identity[2] != _DAMAGED

    @property
    def folder(self) -> Path:
        """Returns the deepest folder that holds all of its files."""
        found = self.files[0].parent
        while not all(file.is_relative_to(found) for file in self.files):
            found = found.parent
        return found


def find_series(paths: Iterable[Path]) -> tuple[list[Series], list[PassedOver]]:
    """Sorts files into series, in the order of their paths, and those passed over.

    Damaged files that may be of several series, or of none that can be read, are
    problems of all series in their folder, or a series of their own. Raises InputError
    when there are DICOM files but pydicom is not installed.
    """
    slices: dict[_Identity, dict[Path, Any]] = defaultdict(dict)
    damaged: dict[Path, tuple[str, _Identity]] = {}
    passed: list[PassedOver] = []
    for path in sorted(paths):
        reason, is_slice = _reason(path)
        if reason and is_slice:
            damaged[path] = reason, ("", "", "")
        elif reason:
            passed.append(PassedOver(path, reason))
        if reason:
            continue
        dicom_file.load_pydicom()
        try:
            header, whole = dicom_file.read_header(path, _TAGS)
            reason, identity = _no_slice(header, whole), _identity(header)
        except Exception as error:  # pydicom raises a bit of everything
            cause = " ".join(str(error).replace(f"{path}: ", "").split())[:80]
            damaged[path] = cause, ("", "", "")
            continue
        if reason:
            passed.append(PassedOver(path, reason))
        elif whole:
            # Without an identifier, slices of one folder are a series.
            series = identity[2] or f"folder {path.parent}"
            slices[(*identity[:2], series)][path] = header
        else:
            damaged[path] = "cut off", identity
    found, spoiling = [], set()
    for identity, headers in slices.items():
        kept, others = _without_others(headers)
        passed += others
        folders = {path.parent for path in kept}
        spoilt = {
            path: why
            for path, (why, whose) in damaged.items()
            if (whose == identity if whose[2] else path.parent in folders)
        }
        spoiling |= set(spoilt)
        found.append(_series(identity, kept, spoilt))
    alone: dict[Path, dict[Path, str]] = defaultdict(dict)
    for path in damaged.keys() - spoiling:
        alone[path.parent][path] = damaged[path][0]
    for folder, why in sorted(alone.items()):
        of = counted(len(why), "DICOM file")
        problem = f"{folder}: none can be read of {of}: {_names(why)}; copy again"
        identity = ("", str(folder), _DAMAGED)
        found.append(Series(identity, folder.name, tuple(sorted(why)), problem))
    return found, passed


def _reason(path: Path) -> tuple[str, bool]:
    """Returns why a file is no DICOM, "" if it is, and whether it should be a slice."""
    try:
        if dicom_file.is_dicom(path):
            return "", True
        if dicom_file.was_dicom(path):
            return "empty or no DICOM", True
    except OSError as error:
        return error.strerror or "cannot be read", dicom_file.has_slice_name(path)
    return "neither NIfTI nor DICOM", False


def _identity(header: Any) -> _Identity:
    patient, study, series = (
        str(header.get(name) or "")
        for name in ("PatientID", "StudyInstanceUID", "SeriesInstanceUID")
    )
    return patient, study, series


def _no_slice(header: Any, whole: bool) -> str:
    """Returns why a file is no slice and never was; "" for one that is, or was."""
    kind = header.get("SOPClassUID")
    kind = kind or header.file_meta.get("MediaStorageSOPClassUID")
    if kind and kind not in (_CT, _MR, _PET, _CAPTURE, *_ENHANCED):
        return dicom_file.load_pydicom().uid.UID(kind).name
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localizer (scout)"
    placed = bool(header.get("ImagePositionPatient"))
    if whole and not placed and kind in (None, "", _CAPTURE):
        return "picture without a place in space"
    return ""


def _without_others(
    headers: Mapping[Path, Any],
) -> tuple[dict[Path, Any], list[PassedOver]]:
    """Leaves out copies of a slice, and scouts: few slices across all the others."""
    kept, passed = dict(headers), []
    repeated = Counter(str(h.get("SOPInstanceUID")) for h in headers.values())
    first: dict[str, Path] = {}
    for path in sorted(headers, key=lambda path: (len(path.name), path)):
        if repeated[str(headers[path].get("SOPInstanceUID"))] > 1:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            if (original := first.setdefault(digest, path)) != path:
                del kept[path]
                passed.append(PassedOver(path, f"copy of {original.name}"))
    planes = {path: _plane(header) for path, header in kept.items()}
    usual, _ = Counter(planes.values()).most_common(1)[0]
    # A slice without an orientation spoils its series: it may be any of them.
    across = [p for p, plane in planes.items() if plane not in (usual, None)]
    if len(across) <= len(kept) / 5:
        for path in across:
            del kept[path]
            passed.append(PassedOver(path, "scout: lies across the other slices"))
    return kept, passed


def _plane(header: Any) -> int | None:
    """Returns the axis of the body that a slice is perpendicular to, None if unsaid."""
    try:
        a, b, c, d, e, f = (float(v) for v in header.ImageOrientationPatient)
    except (AttributeError, TypeError, ValueError):
        return None
    normal = [abs(b * f - c * e), abs(c * d - a * f), abs(a * e - b * d)]
    return normal.index(max(normal))


def _series(
    identity: _Identity, headers: Mapping[Path, Any], spoilt: Mapping[Path, str]
) -> Series:
    files, first = tuple(headers), next(iter(headers.values()))
    number = first.get("SeriesNumber")
    name = identity[0] or "series"
    name += "" if number is None else f"_{number}"
    problem, notes = "", []
    many = [
        path
        for path, header in headers.items()
        if header.get("SOPClassUID") in _ENHANCED
        or str(header.get("NumberOfFrames") or 1) != "1"
    ]
    if spoilt:
        problem = (
            f"{counted(len(spoilt), 'file')} cannot be read, of or beside its "
            f"{counted(len(files), 'slice')}: {_names(spoilt)}; copy or move them"
        )
    elif many:
        problem = (
            f"{many[0]}: many frames in one file (enhanced DICOM) are not read; "
            "convert it to NIfTI, e.g. by dcm2niix"
        )
    for tag, value in (("RescaleSlope", 1), ("RescaleIntercept", 0)):
        lacking = [path for path, h in headers.items() if h.get(tag) in (None, "")]
        if lacking and first.get("SOPClassUID") == _CT:
            more = f" and {len(lacking) - 1} more" if lacking[1:] else ""
            where = f"missing or empty in {lacking[0].name}{more}"
            notes.append(f"{tag} is {where}: {value} was taken")
    return Series(identity, name, files, problem, tuple(notes))


def _names(files: Mapping[Path, str]) -> str:
    listed = sorted(files.items())
    shown = [f"{path.name} ({why})" for path, why in listed[:_SHOWN]]
    return ", ".join(shown) + (", ..." if listed[_SHOWN:] else "")
