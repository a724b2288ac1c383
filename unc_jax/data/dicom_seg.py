"""A mask as a DICOM segmentation object, for viewers that show it on its series.

Needs highdicom: pip install "unc_jax[dicom]".
"""

import hashlib
import warnings
from pathlib import Path

import numpy as np

from unc_jax.data import dicom, files, nifti
from unc_jax.data.nifti import Geometry
from unc_jax.errors import InputError

_MISSING = "DICOM segmentations need highdicom: pip install highdicom"
# Category and type of what is segmented, names of SNOMED CT codes.
_CODES = {
    "liver": ("Organ", "Liver"),
    "tumor": ("MorphologicallyAbnormalStructure", "Neoplasm"),
}
_SERIES_NUMBER = 900  # behind what a scanner numbers


def require() -> None:
    """Raises InputError, saying what to install, when segmentations cannot be made."""
    try:
        import highdicom  # noqa: F401
    except ImportError:
        raise InputError(_MISSING) from None


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

    mask: bool (x, y, z), canonical, on the grid that
    `dicom.read_series(slice_files)` gave with `geometry`. target: "liver" or
    "tumor". Empty planes are left out unless all are empty. The same mask of the
    same series gets the same identifiers. Raises InputError when highdicom is
    missing or the series lacks what a segmentation copies from it (patient and
    study).
    """
    require()
    import highdicom as hd
    import pydicom
    from pydicom.sr.codedict import codes
    from pydicom.uid import generate_uid

    slices = [pydicom.dcmread(file) for file in dicom.ordered(slice_files)]
    if not slices[0].get("SOPClassUID"):
        raise InputError(
            f"{slice_files[0]}: does not say what it is (SOPClassUID is empty)"
        )
    planes = nifti.to_scan_order(mask, geometry).transpose(2, 1, 0)
    category, kind = _CODES[target]
    content = hashlib.sha256(np.packbits(planes).tobytes()).hexdigest()
    mark = [str(slices[0].get("SeriesInstanceUID", "")), target, version, content]
    series, own, tracked = (
        generate_uid(entropy_srcs=[*mark, purpose])
        for purpose in ("series", "instance", "tracking")
    )
    try:
        described = hd.seg.SegmentDescription(
            segment_number=1,
            segment_label=target,
            segmented_property_category=getattr(codes.SCT, category),
            segmented_property_type=getattr(codes.SCT, kind),
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
    with files.replacing(path) as temporary, open(temporary, "wb") as file:
        segmentation.save_as(file)
