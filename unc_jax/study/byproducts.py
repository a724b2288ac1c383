"""What evaluation writes of a case beside its row and its slice."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unc_jax.data import nifti, prepare_case, preprocess, scan_maps
from unc_jax.data.cohort import Cohort
from unc_jax.study import voxel_agreement
from unc_jax.uncertainty.prediction import Prediction, unpack_masks

OnPrediction = Callable[[int, Prediction], None]


def assess_voxels(
    prepared: Cohort,
    single: Callable[[np.ndarray], np.ndarray],
    *,
    raters_of: Path,
    values: Sequence[int],
    folder: Path,
) -> OnPrediction:
    """Writes folder/CASE.json of test cases: calibration, and likeness to raters.

    single: probabilities of one pass without dropout; raters_of: data set whose
    raters/ are compared with, where it has some; values: labels of the target there.
    """
    shape = prepared.images.shape[1:]

    def assess(index: int, prediction: Prediction) -> None:
        case = prepared.ids[index]
        if case not in prepared.split.test:
            return
        image = np.asarray(prepared.images[index], np.float32)
        label = np.asarray(prepared.labels[index])
        found: dict = voxel_agreement.assess(prediction.mean, single(image), label)
        found["raters"] = None
        files = prepare_case.rater_files(raters_of, case)
        if len(files) > 1:
            box = preprocess.box_of(prepared.records[index]["box"])
            marked = prepare_case.prepare_raters(
                files, box=box, shape=shape, values=values
            )
            samples = unpack_masks(prediction.masks, shape[2])
            found["raters"] = voxel_agreement.against_raters(
                prediction.uncertainty, np.asarray(samples), marked
            )
        voxel_agreement.write_case(folder / f"{case}.json", found)

    return assess


def save_maps(prepared: Cohort, folder: Path) -> OnPrediction:
    """Writes folder/CASE/{mask,mean,uncertainty}.nii.gz in the scan's own grid."""

    def save(index: int, prediction: Prediction) -> None:
        record = prepared.records[index]
        geometry = nifti.Geometry.from_json(record["geometry"])
        box = preprocess.box_of(record["box"])
        found = scan_maps.on_scan(
            prediction.mean, prediction.uncertainty, geometry, box
        )
        scan_maps.write_maps(folder / prepared.ids[index], found, geometry)

    return save
