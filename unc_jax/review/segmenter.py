"""What a command segments with: a trained run, and how its scans' livers are found."""

import argparse
import hashlib
import json
from pathlib import Path

import numpy as np

from unc_jax.config import flat_config, read_config
from unc_jax.data import dicom
from unc_jax.data.nifti import Geometry
from unc_jax.errors import InputError
from unc_jax.review import prepare_scan, read_samples, segment_scan
from unc_jax.review.scans import Scan
from unc_jax.review.segment_scan import Extras, FindOrgan, Organ, Segmenter
from unc_jax.study import evaluate, run_folder
from unc_jax.study.predictor import load_predictor
from unc_jax.study.run_folder import Run


def build_segmenter(trained: Run, arguments: argparse.Namespace) -> Segmenter:
    """Of `trained`, by --liver-masks, --liver-run, --samples-too and --dicom-seg.

    Raises InputError for a tumour run without livers, and for a run without a model.
    """
    config = read_config(trained.path / "config.json")
    preparation = prepare_scan.preparation_of(trained)
    find_organ, liver = None, None
    masks, liver_run = arguments.liver_masks, arguments.liver_run
    if preparation.target == "tumor":
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
        dicom.require_highdicom()
    predictor = load_predictor(config, trained.path, preparation.shape)
    content = {
        "config": flat_config(config),
        "preparation": preparation,
        "steps": predictor.steps,
        "liver": liver.fingerprint if liver else str(masks),
        "extras": extras,
    }
    mark = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return Segmenter(trained, preparation, predictor, mark, find_organ, extras)


def _liver_segmenter(path: Path) -> Segmenter:
    trained = run_folder.open_run(path)
    preparation = prepare_scan.preparation_of(trained)
    if preparation.target != "liver":
        raise InputError(f"--liver-run {path} does not segment the liver")
    config = read_config(path / "config.json")
    predictor = load_predictor(config, path, preparation.shape)
    mark = f"{path} step {predictor.steps}"
    return Segmenter(trained, preparation, predictor, mark)


def _organ_from_run(liver: Segmenter) -> FindOrgan:
    """The liver as another run sees it, and how sure that run is of it.

    The paper crops by the reference liver, so measures and predicted quality of the
    tumour are those of a better known liver: the note says so.
    """

    def find(scan: Scan, array: np.ndarray, geometry: Geometry) -> Organ:
        found = segment_scan.segment(scan, array, geometry, liver)
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
        path = read_samples.beside(folder, scan.case)
        if path is None:
            raise InputError(f"{folder}: no {scan.case}.nii.gz or {scan.case}.nii")
        mask = read_samples.read_mask(path)
        if not read_samples.same_grid(geometry, mask.geometry):
            raise InputError(f"{path}: lies on another grid than {scan.path}")
        return Organ(mask.array)

    return find
