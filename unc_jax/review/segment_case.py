"""Segments one scan of a review and writes its output files."""

import hashlib
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data import dicom_seg, scan_maps
from unc_jax.data.geometry import Geometry, same_grid
from unc_jax.data.scan_maps import Maps
from unc_jax.errors import InputError
from unc_jax.review import case_files, own_files, pictures, read_samples, report
from unc_jax.review.own_files import OutputPart
from unc_jax.review.scans import Scan
from unc_jax.review.segment_scan import Segmentation, Segmenter, segment
from unc_jax.review.uncertain_part import describe_uncertainty
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.cases_table import Row


class SegmentRequest(NamedTuple):
    """Options of the command, the same for every case.

    Attributes:
      liver_masks: folder of CASE.nii.gz, for runs with target "tumor"; None: the
        segmenter finds the liver.
      samples: also write the mask of every sample.
      dicom_seg: also write the maps of DICOM series as DICOM segmentations.
      largest: keep only the largest component of each mask.
    """

    output: Path
    liver_masks: Path | None = None
    samples: bool = False
    dicom_seg: bool = False
    largest: bool = False

    def fingerprint(self, segmenter: Segmenter) -> str:
        """Returns a digest of all settings that the files of a case depend on."""
        masks = self.liver_masks is not None
        own = segmenter.fingerprint, masks, self.samples, self.dicom_seg, self.largest
        return hashlib.sha256(json.dumps(own).encode()).hexdigest()

    def liver_mask(self, scan: Scan) -> Path | None:
        """Returns a scan's file in --liver-masks; None without one."""
        if (folder := self.liver_masks) is None:
            return None
        found = (case_files.file_of_case(folder, name) for name in scan.names)
        return next((path for path in found if path), None)

    def segmented(self, scan: Scan) -> str:
        """Returns the SHA-256 of the scan that was segmented; "" if none was.

        The file of the scan may have been replaced since.
        """
        inputs = self.part(scan.case).stored().get("inputs")
        return str(inputs[0]) if isinstance(inputs, list) and inputs else ""

    def part(self, case: str) -> OutputPart:
        """Returns the part of the output that belongs to a case."""
        return own_files.of_case(
            self.output, case, samples=self.samples, segmentations=self.dicom_seg
        )


def check(request: SegmentRequest, segmenter: Segmenter) -> None:
    """Raises InputError for options with which every case would fail."""
    masks = request.liver_masks
    if segmenter.preparation.target == "tumor" and segmenter.liver is None:
        if masks is None:
            raise InputError(
                f"{segmenter.run.path} segments tumours within the liver; name the "
                "livers by --liver-masks DIR or --liver-run RUN"
            )
        if not masks.is_dir():
            raise InputError(f"--liver-masks {masks}: no such folder")
    if segmenter.preparation.target == "liver" and (masks or segmenter.liver):
        raise InputError(
            f"{segmenter.run.path} segments no tumours within a liver; leave out "
            "--liver-masks and --liver-run"
        )
    if request.dicom_seg:
        dicom_seg.require_highdicom()


def finished_row(
    scan: Scan, segmenter: Segmenter, request: SegmentRequest
) -> Row | None:
    """Returns the stored row of a case that this request has finished, else None.

    All of its files must exist, and its scan and liver mask be unchanged. Raises
    InputError if a file was changed after it was written.
    """
    part = request.part(scan.case)
    part.require_unchanged()
    stored = part.stored()
    try:
        same = stored["fingerprint"] == request.fingerprint(segmenter)
        whole = all(path.is_file() for path in part.listed())
        if not (same and whole and stored["inputs"] == _digests(scan, request)):
            return None
        row = cases_table.new_row(REVIEW_COLUMNS, **stored["row"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return {**row, "input": str(scan.path)}  # the folder may have been moved


def segment_case(scan: Scan, segmenter: Segmenter, request: SegmentRequest) -> Row:
    """Segments one scan, writes CASE/*.nii.gz and its picture, returns its row.

    Files of an earlier command are removed first; if the case fails, no files are left.
    Raises InputError for a scan that cannot be used, and for a file that was changed
    after an earlier command wrote it.
    """
    with request.part(scan.case).writing() as record:
        record |= _segment(scan, segmenter, request)
    return record["row"]


def _segment(
    scan: Scan, segmenter: Segmenter, request: SegmentRequest
) -> dict[str, Any]:
    """Writes the files of a case; returns the content of its record."""
    started = time.perf_counter()
    if scan.problem:
        raise InputError(scan.problem)
    inputs = _digests(scan, request)
    array, geometry = scan.read()
    organ = _liver(scan, geometry, segmenter, request)
    found = segment(array, geometry, segmenter, organ, largest=request.largest)
    maps = Maps(found.mask, found.mean, found.uncertainty)
    folder = request.output / scan.case
    scan_maps.write_maps(folder, maps, geometry)
    target = segmenter.preparation.target
    if segmenter.run.config.get("data.liver_labels"):
        target = "organ"  # labels given by value may be of any organ
    extras = _write_extras(scan, found, geometry, request, target)
    warnings = [*scan.warnings, *found.warnings, *extras]
    row: Row = {
        **found.row,
        "case": scan.case,
        "warnings": "; ".join(warnings),
        "uncertain_where": describe_uncertainty(
            found.mask, found.uncertainty, geometry.spacing_mm
        ),
        "input": str(scan.path),
        "seconds": round(time.perf_counter() - started, 3),
    }
    low, high = segmenter.preparation.window_hu or (array.min(), array.max())
    pictures.write_picture(
        request.output / "pictures" / f"{scan.case}.png",
        array,
        found.mask,
        found.uncertainty,
        geometry.spacing_mm,
        window=(float(low), float(high)),
    )
    mark = request.fingerprint(segmenter)
    return {"fingerprint": mark, "inputs": inputs, "row": row}


def _digests(scan: Scan, request: SegmentRequest) -> list[str]:
    """Returns the SHA-256 of the scan and of its liver mask, "" for a missing one."""
    path = request.liver_mask(scan)
    return [scan.digest(), Scan(scan.case, path).digest() if path else ""]


def _liver(
    scan: Scan, geometry: Geometry, segmenter: Segmenter, request: SegmentRequest
) -> np.ndarray | None:
    """Returns the mask in --liver-masks; None without that flag."""
    folder = request.liver_masks
    if folder is None:
        return None
    path = request.liver_mask(scan)
    if path is None:
        raise InputError(f"{folder}: no {scan.case}.nii.gz or {scan.case}.nii")
    mask = read_samples.read_mask(path, segmenter.preparation.liver_labels)
    if not same_grid(geometry, mask.geometry):
        raise InputError(f"{path}: is not on the grid of {scan.path}")
    return mask.array


def _write_extras(
    scan: Scan,
    found: Segmentation,
    geometry: Geometry,
    request: SegmentRequest,
    target: str,
) -> list[str]:
    """Writes samples and DICOM segmentations if requested; returns warnings.

    A series for which no DICOM segmentation can be written gives a warning.
    """
    folder = request.output / scan.case
    if request.samples and found.prediction is not None and found.box is not None:
        masks, shape = found.prediction.masks, found.prediction.mean.shape
        scan_maps.write_samples(folder, masks, shape, geometry, found.box)
    if request.dicom_seg and scan.series:
        try:
            dicom_seg.write_segmentations(
                folder,
                {name: getattr(found, name) for name in scan_maps.MAPS},
                geometry,
                scan.series,
                target=target,
                version=report.versions()["unc_jax"],
            )
        except InputError as error:
            return [f"no DICOM segmentations: {error}"]
    return []
