"""Maps of a case written as DICOM segmentation objects.

Needs highdicom: pip install "unc_jax[dicom]".
"""

import hashlib
import importlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data.dicom import read_slice, sort_slices
from unc_jax.data.dicom_file import load_library, load_pydicom, read_dicom
from unc_jax.data.files import replacing
from unc_jax.data.geometry import Geometry, to_scan_order
from unc_jax.errors import InputError

_NO_HIGHDICOM = "DICOM segmentations need highdicom: pip install highdicom"
# SNOMED CT names: category and type of what is segmented. "organ": one whose name the
# run does not know.
_CODES = {
    "liver": ("Organ", "Liver"),
    "tumor": ("MorphologicallyAbnormalStructure", "Neoplasm"),
    "organ": ("AnatomicalStructure", "Organ"),
}
_LEVELS = 255  # a fraction is a whole number of these parts
_COLOR = (0, 229, 255)  # RGB, of the outlines in the report


class _Content(NamedTuple):
    """Names of a map in lists of series and of segments."""

    number: int  # of the series, behind what a scanner numbers
    label: str  # after the name of the target
    title: str


_CONTENTS = {
    "mask": _Content(900, "", "mask"),
    "mean": _Content(901, ": mean probability", "mean probability"),
    "uncertainty": _Content(902, ": uncertainty, nats", "uncertainty in nats"),
}
# A segmentation copies these of its series. They may be empty (type 2), and are often
# gone where a series was de-identified.
_MAY_BE_EMPTY = ("PatientID", "PatientName", "PatientBirthDate", "PatientSex")
_MAY_BE_EMPTY += ("StudyDate", "StudyTime", "StudyID", "AccessionNumber")
_MAY_BE_EMPTY += ("ReferringPhysicianName", "PositionReferenceIndicator")


def require_highdicom() -> Any:
    """Returns the library that segmentations need; InputError says how to get it."""
    return load_library("highdicom", _NO_HIGHDICOM)


def write_segmentations(
    folder: Path,
    maps: Mapping[str, np.ndarray],
    geometry: Geometry,
    slice_files: tuple[Path, ...],
    *,
    target: str,
    version: str,
) -> None:
    """Writes FOLDER/NAME.dcm of each map, a segment on the slices `slice_files`.

    A mask becomes a BINARY one. Mean and uncertainty become FRACTIONAL ones: a fraction
    of 1 is a probability of 1, or 1 nat, and is rounded to 1/255. Empty planes are left
    out unless all are empty. The same map of the same series gets the same identifiers.
    Raises InputError when highdicom is missing or the series lacks what a segmentation
    copies from it (patient and study); then nothing is written.

    Args:
      maps: "mask", bool, "mean" and "uncertainty", 0 ... 1, by name; each (x, y, z),
        canonical, on the grid that `read_series(slice_files)` gave with `geometry`.
      target: "liver", "tumor" or "organ".
      version: of this program.
    """
    require_highdicom()
    slices = _sources(slice_files)
    try:
        made = {
            name: _segmentation(
                name, to_scan_order(one, geometry).T, slices, target, version
            )
            for name, one in maps.items()
        }
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{slice_files[0]}: its series allows no segmentation ({reason})"
        ) from None
    for name, one in made.items():
        with (
            replacing(folder / f"{name}.dcm") as temporary,
            open(temporary, "wb") as file,
        ):
            one.save_as(file)


def _segmentation(
    name: str, planes: np.ndarray, slices: list[Any], target: str, version: str
) -> Any:
    """Returns the segmentation object of a map (planes, rows, columns)."""
    hd, content = require_highdicom(), _CONTENTS[name]
    kinds = hd.seg.SegmentationTypeValues
    kind = kinds.BINARY if name == "mask" else kinds.FRACTIONAL
    # Of nats no scan has more than 1: the largest is 0.37, of masks 0.69.
    levels = np.rint(np.clip(np.nan_to_num(planes), 0, 1) * _LEVELS).astype(np.uint8)
    mark = [str(slices[0].get("SeriesInstanceUID", "")), target, version, name]
    mark.append(hashlib.sha256(levels.tobytes()).hexdigest())
    series, own, tracked = (
        load_pydicom().uid.generate_uid(entropy_srcs=[*mark, purpose])
        for purpose in ("series", "instance", "tracking")
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on attributes that a source lacks
        return hd.seg.Segmentation(
            source_images=slices,
            pixel_array=(
                levels // _LEVELS if name == "mask" else levels / np.float32(_LEVELS)
            ),
            segmentation_type=kind,
            max_fractional_value=_LEVELS,
            segment_descriptions=[_description(target, content, version, tracked)],
            series_instance_uid=series,
            series_number=content.number,
            series_description=f"unc_jax {target}, {content.title}",
            content_description=f"{target}, {content.title}",
            content_label=name.upper(),
            sop_instance_uid=own,
            instance_number=1,
            manufacturer="unc_jax",
            manufacturer_model_name="unc_jax",
            software_versions=version,
            device_serial_number="0",
            omit_empty_frames=True,
        )


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
        raise InputError(f"{files[0]}: its SOPClassUID is empty")
    return slices


def _description(target: str, content: _Content, version: str, tracked: str) -> Any:
    """Returns what the segment is, and what made it."""
    hd = require_highdicom()
    codes = importlib.import_module("pydicom.sr.codedict").codes
    category, kind = (getattr(codes.SCT, name) for name in _CODES[target])
    return hd.seg.SegmentDescription(
        segment_number=1,
        segment_label=target + content.label,
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name="unc_jax", family=codes.DCM.ArtificialIntelligence, version=version
        ),
        tracking_uid=tracked,
        tracking_id=f"unc_jax {target}, {content.title}",
        display_color=hd.color.CIELabColor.from_rgb(*_COLOR),
    )
