"""Masks written as DICOM segmentation objects.

Needs highdicom: pip install "unc_jax[dicom]".
"""

import hashlib
import importlib
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from unc_jax.data.dicom import read_slice, sort_slices
from unc_jax.data.dicom_file import load_library, load_pydicom, read_dicom
from unc_jax.data.files import replacing
from unc_jax.data.geometry import Geometry, to_scan_order
from unc_jax.errors import InputError

_NO_HIGHDICOM = "DICOM segmentations need highdicom: pip install highdicom"
# SNOMED CT names: category and type of what is segmented.
_CODES = {
    "liver": ("Organ", "Liver"),
    "tumor": ("MorphologicallyAbnormalStructure", "Neoplasm"),
}
_SERIES_NUMBER = 900  # behind what a scanner numbers
# A segmentation copies these of its series. They may be empty (type 2), and are often
# gone where a series was de-identified.
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_MAY_BE_EMPTY += ("StudyDate", "StudyTime", "StudyID", "AccessionNumber")
_MAY_BE_EMPTY += ("ReferringPhysicianName", "PositionReferenceIndicator")


def require_highdicom() -> Any:
    """Returns the library that segmentations need; InputError says how to get it."""
    return load_library("highdicom", _NO_HIGHDICOM)


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
    hd, slices = require_highdicom(), _sources(slice_files)
    planes = to_scan_order(mask, geometry).transpose(2, 1, 0)
    content = hashlib.sha256(np.packbits(planes).tobytes()).hexdigest()
    mark = [str(slices[0].get("SeriesInstanceUID", "")), target, version, content]
    series, own, tracked = (
        load_pydicom().uid.generate_uid(entropy_srcs=[*mark, purpose])
        for purpose in ("series", "instance", "tracking")
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on attributes that a source lacks
            segmentation = hd.seg.Segmentation(
                source_images=slices,
                pixel_array=np.ascontiguousarray(planes, np.uint8),
                segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[_description(target, version, tracked)],
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


def _sources(files: tuple[Path, ...]) -> list[Any]:
    """Reads the slices in their order, with what a segmentation copies from them."""
    read = {path: read_dicom(path) for path in files}
    places = [read_slice(one, path) for path, one in read.items()]
    slices = [read[place.path] for place in sort_slices(places)]
    for one in slices:
        for name in _MAY_BE_EMPTY:
            if name not in one:
                setattr(one, name, "")
    if not slices[0].get("SOPClassUID"):
        raise InputError(f"{files[0]}: does not say what it is (SOPClassUID is empty)")
    return slices


def _description(target: str, version: str, tracked: str) -> Any:
    """Returns what the segment is, and what made it."""
    hd = require_highdicom()
    codes = importlib.import_module("pydicom.sr.codedict").codes
    category, kind = (getattr(codes.SCT, name) for name in _CODES[target])
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=target,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="unc_jax", family=codes.DCM.ArtificialIntelligence, version=version
        ),
        tracking_uid=tracked,
        tracking_id=f"unc_jax {target}",
    )
