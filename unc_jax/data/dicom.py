"""DICOM: CT series read as scans, masks written as segmentation objects.

Series need pydicom (compressed ones pylibjpeg too), segmentations highdicom: pip
install "unc_jax[dicom]".
"""

import hashlib
import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from unc_jax.data.files import replacing
from unc_jax.data.geometry import Geometry, to_canonical, to_scan_order
from unc_jax.data.nifti import Scan
from unc_jax.errors import InputError

_NO_PYDICOM = "DICOM files need pydicom: pip install pydicom pylibjpeg-openjpeg"
_NO_HIGHDICOM = "DICOM segmentations need highdicom: pip install highdicom"
_TAGS = ["SeriesInstanceUID", "SeriesNumber", "PatientID"]
_TAGS += ["ImagePositionPatient", "ImageOrientationPatient"]
_GAP = 0.05  # largest unevenness of the slices' distance, as a share of it
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts towards left and back
# SNOMED CT names: category and type of what is segmented.
_CODES = {
    "liver": ("Organ", "Liver"),
    "tumor": ("MorphologicallyAbnormalStructure", "Neoplasm"),
}
_SERIES_NUMBER = 900  # behind what a scanner numbers


def find_series(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Lists the files of each series below `folder`, by PATIENT_SERIES.

    Files without a place in space (reports, scouts) are left out. Raises InputError
    when DICOM files are there but pydicom is not, or none is a slice.
    """
    files = sorted(path for path in folder.rglob("*") if _is_dicom(path))
    series: dict[str, list[Path]] = {}
    names: dict[str, str] = {}
    for path in files:
        header = _header(path)
        if header is None or "ImagePositionPatient" not in header:
            continue
        uid = str(header.get("SeriesInstanceUID", ""))
        patient = str(header.get("PatientID", "")) or "series"
        number = header.get("SeriesNumber")
        names[uid] = patient if number is None else f"{patient}_{number}"
        series.setdefault(uid, []).append(path)
    if files and not series:
        raise InputError(
            f"{folder}: none of its {len(files)} DICOM files can be read as a slice "
            "with a place in space (ImagePositionPatient)"
        )
    if len(set(names.values())) < len(names):
        names = {uid: f"{name}_{uid}" for uid, name in names.items()}
    return {names[uid]: tuple(paths) for uid, paths in series.items()}


def read_series(files: tuple[Path, ...]) -> Scan:
    """Reads the voxels of one series in HU (rescaled), int16, canonical order.

    Slices are sorted along their normal. Raises InputError, naming a file, for slices
    that differ in size, direction or distance (a missing one too), for colours, and for
    a compression that no installed decoder reads.
    """
    dcmread = _pydicom().dcmread
    slices = [dcmread(path) for path in files]
    first = slices[0]
    try:
        row, column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
        order, places = _order(slices)
        slices, files = [slices[i] for i in order], tuple(files[i] for i in order)
        step = _step(places, files)
        for one, path in zip(slices, files, strict=True):
            _check_alike(first, one, path)
    except (AttributeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{files[0]}: geometry is missing ({error})") from None
    planes = [_plane(one, path) for one, path in zip(slices, files, strict=True)]
    array = np.stack(planes, axis=-1)  # (columns, rows, slices)
    spacing_row, spacing_column = (float(size) for size in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = row * spacing_column  # along a row the column index grows
    affine[:3, 1] = column * spacing_row
    affine[:3, 2] = np.cross(row, column) * step
    affine[:3, 3] = slices[0].ImagePositionPatient
    x, y, z = array.shape
    geometry = Geometry((x, y, z), _TO_RAS @ affine)
    return Scan(to_canonical(array, geometry), geometry)


def require_highdicom() -> Any:
    """Returns the library that segmentations need; InputError says how to get it."""
    return _library("highdicom", _NO_HIGHDICOM)


def write_segmentation(
    path: Path,
    mask: np.ndarray,
    geometry: Geometry,
    slice_files: tuple[Path, ...],
    *,
    target: str,
    version: str,
) -> None:
    """Writes one binary segment that refers to the slices `slice_files` it lies on.

    Empty planes are left out unless all are empty. The same mask of the same series
    gets the same identifiers. Raises InputError when highdicom is missing or the series
    lacks what a segmentation copies from it (patient and study).

    Args:
      mask: bool (x, y, z), canonical, on the grid that `read_series(slice_files)` gave
        with `geometry`.
      target: "liver" or "tumor".
      version: of this program.
    """
    hd, pydicom = require_highdicom(), _pydicom()
    codes = importlib.import_module("pydicom.sr.codedict").codes
    order, _ = _order([_header(file) for file in slice_files])
    slices = [pydicom.dcmread(slice_files[i]) for i in order]
    if not slices[0].get("SOPClassUID"):
        raise InputError(
            f"{slice_files[0]}: does not say what it is (SOPClassUID is empty)"
        )
    planes = to_scan_order(mask, geometry).transpose(2, 1, 0)
    content = hashlib.sha256(np.packbits(planes).tobytes()).hexdigest()
    mark = [str(slices[0].get("SeriesInstanceUID", "")), target, version, content]
    series, own, tracked = (
        pydicom.uid.generate_uid(entropy_srcs=[*mark, purpose])
        for purpose in ("series", "instance", "tracking")
    )
    try:
        category, kind = (getattr(codes.SCT, name) for name in _CODES[target])
        described = hd.seg.SegmentDescription(
            segment_number=1,
            segment_label=target,
            segmented_property_category=category,
            segmented_property_type=kind,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence(
                name="unc_jax",
                family=codes.DCM.ArtificialIntelligence,
                version=version,
            ),
            tracking_uid=tracked,
            tracking_id=f"unc_jax {target}",
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on attributes that a source lacks
            segmentation = hd.seg.Segmentation(
                source_images=slices,
                pixel_array=np.ascontiguousarray(planes, np.uint8),
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[described],
                series_instance_uid=series,
                series_number=_SERIES_NUMBER,
                sop_instance_uid=own,
                instance_number=1,
                manufacturer="unc_jax",
                manufacturer_model_name="unc_jax",
                software_versions=version,
                device_serial_number="0",
                omit_empty_frames=True,
            )
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{slice_files[0]}: its series allows no segmentation ({reason})"
        ) from None
    with replacing(path) as temporary, open(temporary, "wb") as file:
        segmentation.save_as(file)


def _order(slices: list[Any]) -> tuple[np.ndarray, np.ndarray]:
    """Returns the order of slices along the normal of the first, and places, mm."""
    row, column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    normal = np.cross(row, column)
    places = np.array([np.dot(one.ImagePositionPatient, normal) for one in slices])
    order = np.argsort(places, kind="stable")
    return order, places[order]


def _step(places: np.ndarray, files: tuple[Path, ...]) -> float:
    if len(places) < 2:
        raise InputError(f"{files[0]}: one slice is no volume")
    steps = np.diff(places)
    step = float(np.median(steps))
    odd = np.abs(steps - step) > _GAP * step
    if step <= 0 or odd.any():
        where = int(odd.argmax())
        raise InputError(
            f"{files[where + 1]}: lies {steps[where]:.3g} mm behind the slice before, "
            f"the others {step:.3g} mm; a slice is missing or doubled"
        )
    return step


def _check_alike(first: Any, one: Any, path: Path) -> None:
    same = (one.Rows, one.Columns) == (first.Rows, first.Columns)
    for name in ("ImageOrientationPatient", "PixelSpacing"):
        same = same and np.allclose(one[name].value, first[name].value, atol=1e-3)
    if not same:
        raise InputError(f"{path}: differs from its series in size or direction")


def _plane(one: Any, path: Path) -> np.ndarray:
    """Decodes a slice, int16 (columns, rows), HU."""
    try:
        pixels = one.pixel_array
    except (AttributeError, NotImplementedError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: voxels cannot be decoded ({reason})") from None
    if pixels.ndim != 2:
        raise InputError(f"{path}: has colours or several frames")
    slope = float(one.get("RescaleSlope", 1))
    intercept = float(one.get("RescaleIntercept", 0))
    values = np.rint(pixels.astype(np.float32) * slope + intercept)
    return values.clip(-32768, 32767).astype(np.int16).T


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _header(path: Path) -> Any | None:
    """Reads a slice without its pixels; None if it only looks like DICOM."""
    dcmread = _pydicom().dcmread
    try:
        return dcmread(path, stop_before_pixels=True, specific_tags=_TAGS)
    except Exception:  # pydicom raises a bit of everything
        return None


def _pydicom() -> Any:
    return _library("pydicom", _NO_PYDICOM)


def _library(name: str, missing: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(missing) from None
