"""One scan of a user: prepared, segmented by N samples, measured, written."""

import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import dicom, files, scan_maps
from unc_jax.data.nifti import Geometry
from unc_jax.data.preprocess import Box
from unc_jax.data.scan_maps import Maps
from unc_jax.errors import InputError
from unc_jax.review import checks, pictures, report
from unc_jax.review.prepare_scan import Preparation, prepare_scan
from unc_jax.review.scans import Scan
from unc_jax.study import cases_table, evaluate
from unc_jax.study.cases_table import REVIEW_COLUMNS, Row
from unc_jax.study.predictor import Predictor
from unc_jax.study.run_folder import Run
from unc_jax.uncertainty.prediction import Prediction

_SMALLEST = 8  # voxels along an axis
_RECORD = "case.json"  # written last: a case that has it is complete


class Organ(NamedTuple):
    """Where a part is looked for: bool mask of the scan, and what to know about it."""

    mask: np.ndarray
    note: str = ""


FindOrgan = Callable[[Scan, np.ndarray, Geometry], Organ]


class Extras(NamedTuple):
    """What is written of a case only when asked for."""

    samples: bool = False  # the mask of every sample
    dicom_seg: bool = False  # of DICOM series, the mask as a DICOM segmentation


class Segmenter(NamedTuple):
    """What every case of one command is segmented with.

    Attributes:
      fingerprint: of everything that results depend on beside the scan.
      find_organ: where the liver is, for runs of target "tumor".
      extras: what to write beside the maps.
    """

    run: Run
    preparation: Preparation
    predictor: Predictor
    fingerprint: str
    find_organ: FindOrgan | None = None
    extras: Extras = Extras()


class Segmented(NamedTuple):
    maps: Maps
    prediction: Prediction
    voxel_ml: float  # of the prepared grid, which `prediction` lies on
    box: Box  # the part of the scan that grid spans


def finished_row(folder: Path, scan: Scan, fingerprint: str) -> Row | None:
    """The row of a case that was finished under the same fingerprint, else None.

    All of its maps must be there, and the scan be the file it was.
    """
    try:
        stored = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        same = stored["fingerprint"] == fingerprint and stored["scan"] == scan.stamp()
        whole = all((folder / f"{name}.nii.gz").is_file() for name in scan_maps.MAPS)
        return (
            cases_table.new_row(REVIEW_COLUMNS, **stored["row"])
            if same and whole
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def segment_case(scan: Scan, segmenter: Segmenter, output: Path) -> Row:
    """Segments one scan and writes CASE/*.nii.gz and its picture; returns its row.

    Raises InputError for a scan that cannot be used.
    """
    started = time.perf_counter()
    if scan.problem:
        raise InputError(scan.problem)
    stamp = scan.stamp()
    array, geometry = scan.read()
    _check(array)
    foreign = _foreign(array, segmenter.preparation)
    warnings = [*foreign, *_geometry_warnings(geometry, segmenter.preparation)]
    organ = segmenter.find_organ and segmenter.find_organ(scan, array, geometry)
    if organ and organ.note:
        warnings.append(organ.note)
    segmented = None
    if organ and not organ.mask.any():
        empty = np.zeros(array.shape, np.float32)
        found = Maps(empty > 0, empty, empty)
        row = cases_table.new_row(
            REVIEW_COLUMNS, case=scan.case, status=cases_table.NO_LIVER
        )
    else:
        segmented = segment(scan, array, geometry, segmenter, organ and organ.mask)
        found = segmented.maps
        warnings += checks.border_warnings(found.mask)
        row = _row(
            scan, segmented, segmenter.preparation, ["intensities"] if foreign else []
        )
    folder = output / scan.case
    (folder / _RECORD).unlink(missing_ok=True)
    scan_maps.write_maps(folder, found, geometry)
    warnings += _write_extras(folder, scan, found, segmented, geometry, segmenter)
    row |= {
        "warnings": "; ".join(warnings),
        "input": str(scan.path),
        "seconds": round(time.perf_counter() - started, 3),
    }
    window = segmenter.preparation.window_hu or (array.min(), array.max())
    pictures.write_picture(
        output / "pictures" / f"{scan.case}.png",
        array,
        found.mask,
        found.uncertainty,
        geometry.spacing_mm,
        window=(float(window[0]), float(window[1])),
    )
    record = {"fingerprint": segmenter.fingerprint, "scan": stamp, "row": row}
    files.write_json(folder / _RECORD, record)
    return row


def segment(
    scan: Scan,
    array: np.ndarray,
    geometry: Geometry,
    segmenter: Segmenter,
    organ: np.ndarray | None = None,
) -> Segmented:
    """Mean, mask and uncertainty of a canonical scan on its own grid.

    The masks of the samples depend on the scan's content, not on its name or company.
    """
    try:
        prepared = prepare_scan(array, geometry, segmenter.preparation, organ)
    except ValueError as error:
        raise InputError(f"{scan.path}: {error}") from None
    prediction = segmenter.predictor.predict(prepared.image, _number(prepared.image))
    if not np.isfinite(prediction.mean).all():
        raise FloatingPointError("probabilities are not finite")
    found = scan_maps.on_scan(
        prediction.mean, prediction.uncertainty, geometry, prepared.box
    )
    return Segmented(found, prediction, prepared.voxel_ml, prepared.box)


def _write_extras(
    folder: Path,
    scan: Scan,
    found: Maps,
    segmented: Segmented | None,
    geometry: Geometry,
    segmenter: Segmenter,
) -> list[str]:
    """Returns warnings: a series that allows no segmentation object is no failure."""
    if segmenter.extras.samples and segmented is not None:
        masks, shape = segmented.prediction.masks, segmented.prediction.mean.shape
        scan_maps.write_samples(folder, masks, shape, geometry, segmented.box)
    if segmenter.extras.dicom_seg and scan.series:
        try:
            dicom.write_segmentation(
                folder / "mask.dcm",
                found.mask,
                geometry,
                scan.series,
                target=segmenter.preparation.target,
                version=report.versions()["unc_jax"],
            )
        except InputError as error:
            return [f"no mask.dcm: {error}"]
    return []


def _row(
    scan: Scan, segmented: Segmented, preparation: Preparation, odd: list[str]
) -> Row:
    numbers = evaluate.measure(segmented.prediction, segmented.voxel_ml)
    status = cases_table.OK if segmented.maps.mask.any() else cases_table.EMPTY
    odd = [*odd, *checks.unlike(numbers, preparation.ranges)]
    return cases_table.new_row(
        REVIEW_COLUMNS, case=scan.case, status=status, unlike=", ".join(odd), **numbers
    )


def _check(array: np.ndarray) -> None:
    if min(array.shape) < _SMALLEST:
        size = " x ".join(map(str, array.shape))
        raise InputError(
            f"a scan of {size} voxels; at least {_SMALLEST} along each axis are needed"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("has NaN or infinite voxels; mend the scan")


def _foreign(array: np.ndarray, preparation: Preparation) -> list[str]:
    windowed = bool(preparation.window_hu)  # MR has no scale to hold to
    return list(checks.intensity_warnings(array)) if windowed else []


def _geometry_warnings(geometry: Geometry, preparation: Preparation) -> list[str]:
    found = []
    if geometry.fields["sform_code"] == 0 and geometry.fields["qform_code"] == 0:
        found.append("no geometry in the header: spacing and sides are a guess")
    trained = preparation.spacing_mm
    return [*found, *checks.spacing_warnings(geometry.spacing_mm, trained)]


def _number(image: np.ndarray) -> int:
    digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
    return int.from_bytes(digest[:4], "big") >> 1
