"""The delivered mask of a case, on the grid of its scan: quality and files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

from unc_jax.data import nifti, preprocess, scan_maps
from unc_jax.data.cohort import Cohort
from unc_jax.errors import InputError
from unc_jax.study import case_columns, metrics
from unc_jax.study.cases_table import Row
from unc_jax.uncertainty.measures import THRESHOLD
from unc_jax.uncertainty.prediction import Prediction


def measure(
    prediction: Prediction, record: dict[str, Any], reference: np.ndarray | None
) -> Row:
    """Returns Dice and distances (mm) of the delivered mask.

    record: entry of the prepared case. reference: bool (x, y, z) in canonical order.
    Returns {} without a reference, or if it has another shape than the scan.
    """
    if reference is None:
        return {}
    grid = nifti.Geometry.from_json(record["geometry"])
    if reference.shape != grid.canonical_shape:
        return {}
    box = preprocess.box_of(record["box"])
    mask = scan_maps.mean_on_scan(prediction.mean, grid, box) >= THRESHOLD
    found = {"dice_scan": metrics.dice(mask, reference)}
    found |= case_columns.measure_distances(mask, reference, grid.spacing_mm)
    return {name: None if np.isnan(one) else one for name, one in found.items()}


def read_reference(path: Path | None, values: Sequence[int]) -> np.ndarray | None:
    """Reads the mask of some labels, bool (x, y, z); None if it cannot be read."""
    try:
        return path and preprocess.select(nifti.read(path, labels=True).array, values)
    except (InputError, OSError) as error:
        logging.warning("no Dice on the scan's own grid: %s", error)
        return None


def write_maps(
    folder: Path, cohort: Cohort, index: int, prediction: Prediction
) -> None:
    """Writes folder/CASE/{mask,mean,uncertainty}.nii.gz in the scan's own grid."""
    record = cohort.records[index]
    geometry = nifti.Geometry.from_json(record["geometry"])
    box = preprocess.box_of(record["box"])
    found = scan_maps.on_scan(prediction.mean, prediction.uncertainty, geometry, box)
    scan_maps.write_maps(folder / cohort.ids[index], found, geometry)
