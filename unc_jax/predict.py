"""Segments a user's own scans and says which segmentations a human should review.

python -m unc_jax.predict --run RUN --input PATH --output DIR
    [--target-dice 0.9] [--review-fraction 0.1] [--level 0.9] [--calibrate CASES_CSV]
    [--liver-masks DIR | --liver-run RUN] [--samples-too] [--dicom-seg]

PATH is a NIfTI file, a folder of them, of DICOM series, or a Decathlon or nnU-Net set.
Exit codes: 0 done, 2 wrong input, 4 some cases failed (their rows say why).
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging

from unc_jax.data import atomic, dicom_seg, lock
from unc_jax.data.nifti import Geometry
from unc_jax.errors import InputError
from unc_jax.fields import flat_config
from unc_jax.review import (
    calibration,
    quality,
    report,
    rule,
    runfolder,
    samples,
    scans,
    segmentation,
    worklist,
)
from unc_jax.review.commandline import (
    SOME_FAILED,
    Parser,
    add_review_flags,
    guarded,
    rule_text,
    versions,
)
from unc_jax.review.quality import Quality
from unc_jax.review.runfolder import Run
from unc_jax.review.scans import Scan
from unc_jax.review.segmentation import Extras, FindOrgan, Organ, Segmenter
from unc_jax.review.worklist import Row
from unc_jax.segmentation.progress import Progress
from unc_jax.study import evaluate
from unc_jax.study.predictor import load_predictor


def run(arguments: argparse.Namespace) -> int:
    """Segments every scan and writes the output; returns the exit code."""
    wanted = rule.Rule(
        arguments.target_dice, arguments.review_fraction, arguments.level
    )
    rule.check(wanted)
    trained = runfolder.load(arguments.run)
    known, model = _known_quality(trained, arguments)
    found = scans.find_scans(arguments.input)
    segmenter = _segmenter(trained, arguments)
    output = arguments.output
    with lock.hold(output, "unc_jax.predict"):
        rows: list[Row] = []
        for row in _segmented(found, segmenter, output):
            rows.append(_with_quality(row, model, arguments.level))
            rows = rule.decide(rows, wanted)
            worklist.write_rows(output / "cases.csv", worklist.order(rows))
        facts = {"run": str(trained.path), "scans": str(arguments.input), **versions()}
        details = {
            "config": flat_config(trained.config),
            "steps": segmenter.predictor.steps,
            "fingerprint": segmenter.fingerprint,
            "seed": trained.config.seed,
            "device": str(jax.devices()[0].device_kind),
            "sha256": {str(scan.case): scan.digest() for scan in found},
        }
        atomic.write_json(output / "run.json", {**facts, **details})
        report.write_report(
            output / "report.html",
            rows,
            title=f"Review: {arguments.input}",
            facts=facts,
            pictures=output / "pictures",
            validation=calibration.distributions(known),
            rule_text=rule_text(wanted),
        )
    failed = sum(str(row["status"]).startswith(worklist.FAILED) for row in rows)
    flagged = sum(row["flag"] == "yes" for row in rows)
    print(f"{len(rows)} cases, {flagged} to review, {failed} failed")
    print(f"cases:  {output / 'cases.csv'}\nreport: {output / 'report.html'}")
    return SOME_FAILED if failed else 0


def _known_quality(
    trained: Run, arguments: argparse.Namespace
) -> tuple[list[Row], Quality | None]:
    """Cases with a known Dice, and the quality map calibrated with them."""
    known, model = trained.rows, trained.quality
    if arguments.calibrate:
        known = calibration.read_calibration(arguments.calibrate)
        model = quality.fit(trained.rows, calibration=known)
    if model is None:
        print(
            f"{trained.path} predicts no Dice: too few validation cases; name cases "
            "with a reference by --calibrate CASES_CSV",
            file=sys.stderr,
        )
        return known, None
    greatest = quality.greatest_level(len(model.residuals))
    if arguments.level > greatest:
        print(
            f"no lower bound at level {arguments.level:g}: {len(model.residuals)} "
            f"calibration cases support {greatest:.3f} at most",
            file=sys.stderr,
        )
    return known, model


def _segmenter(trained: Run, arguments: argparse.Namespace) -> Segmenter:
    find_organ, liver = None, None
    masks, liver_run = arguments.liver_masks, arguments.liver_run
    if trained.preparation.target == "tumor":
        if liver_run is not None:
            liver = _liver_segmenter(liver_run)
            find_organ = _organ_from_run(liver)
        elif masks is not None:
            find_organ = _organ_from_masks(masks)
        else:
            raise InputError(
                f"{trained.path} segments tumours within the liver; name the livers by "
                "--liver-masks DIR or --liver-run RUN"
            )
    extras = Extras(arguments.samples_too, arguments.dicom_seg)
    if extras.dicom_seg:
        dicom_seg.require()
    predictor = load_predictor(trained.config, trained.path)
    content = {
        "config": flat_config(trained.config),
        "preparation": trained.preparation,
        "steps": predictor.steps,
        "liver": liver.fingerprint if liver else str(masks),
        "extras": extras,
    }
    mark = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Segmenter(trained, predictor, mark, find_organ, extras)


def _liver_segmenter(path: Path) -> Segmenter:
    trained = runfolder.load(path)
    if trained.preparation.target != "liver":
        raise InputError(f"--liver-run {path} does not segment the liver")
    predictor = load_predictor(trained.config, path)
    return Segmenter(trained, predictor, f"{path} step {predictor.steps}")


def _organ_from_run(liver: Segmenter) -> FindOrgan:
    """The liver as another run sees it, and how sure that run is of it.

    The paper crops by the reference liver, so measures and predicted quality of the
    tumour are those of a better known liver: the note says so.
    """

    def find(scan: Scan, array: np.ndarray, geometry: Geometry) -> Organ:
        found = segmentation.segment(scan, array, geometry, liver)
        sure = evaluate.measure(found.prediction, found.voxel_ml)
        note = (
            f"liver found by {liver.run.path.name} (D_pw {sure['d_pw']:.3f}, CV "
            f"{sure['cv']:.3g}, U {sure['u_labelled']:.3f}), not the reference liver "
            "that the run was trained with"
        )
        return Organ(found.maps.mask, note)

    return find


def _organ_from_masks(folder: Path) -> FindOrgan:
    if not folder.is_dir():
        raise InputError(f"--liver-masks {folder}: no such folder")

    def find(scan: Scan, array: np.ndarray, geometry: Geometry) -> Organ:
        path = samples.beside(folder, scan.case)
        if path is None:
            raise InputError(f"{folder}: no {scan.case}.nii.gz or {scan.case}.nii")
        mask = samples.read_mask(path)
        if not samples.same_grid(geometry, mask.geometry):
            raise InputError(f"{path}: lies on another grid than {scan.path}")
        return Organ(mask.array)

    return find


def _segmented(found: list[Scan], segmenter: Segmenter, output: Path):
    """Rows as they come; finished cases are not segmented again."""
    progress = Progress("predict", len(found), "cases")
    for done, scan in enumerate(found, start=1):
        folder = output / scan.case
        row = segmentation.finished_row(folder, scan, segmenter.fingerprint)
        yield row or _attempt(scan, segmenter, output)
        progress(done, scan.case)


def _attempt(scan: Scan, segmenter: Segmenter, output: Path) -> Row:
    try:
        return segmentation.segment_case(scan, segmenter, output)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None:
            raise  # of the output: no later case would fare better
        words = " ".join(str(error).split())[:300]
        if not isinstance(error, InputError):
            logging.exception("case %s failed", scan.case)
            words = f"{type(error).__name__}: {words}"
        return worklist.new_row(
            case=scan.case, status=worklist.FAILED + words, input=str(scan.path)
        )


def _with_quality(row: Row, model: Quality | None, level: float) -> Row:
    if model is None or not worklist.is_usable(row):
        return row
    found = quality.predict(model, row, level)
    return worklist.new_row(
        **{**row, "predicted_dice": found.predicted, "dice_lower": found.lower}
    )


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(
        prog="unc_jax.predict", description="Segment scans; say which to review."
    )
    parser.add_argument("--run", type=Path, required=True, help="trained run")
    parser.add_argument("--input", type=Path, required=True, help="scan or folder")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--liver-masks", type=Path, help="folder of CASE.nii.gz")
    parser.add_argument("--liver-run", type=Path, help="run that finds the liver")
    parser.add_argument(
        "--samples-too", action="store_true", help="also CASE/samples/NN.nii.gz"
    )
    parser.add_argument(
        "--dicom-seg", action="store_true", help="of DICOM series also CASE/mask.dcm"
    )
    add_review_flags(parser)
    guarded(run, parser, argv)


if __name__ == "__main__":
    main()
