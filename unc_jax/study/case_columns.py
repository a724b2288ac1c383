"""Columns of the tables of cases, and the numbers of a row that a case is measured by.

An evaluation's table (`EVALUATION_COLUMNS`) has a reference for every case, a review's
table (`REVIEW_COLUMNS`) holds a user's cases, mostly without one.
"""

from collections.abc import Callable, Sequence

import numpy as np

from unc_jax.study.distances import Distances, surface_distances
from unc_jax.study.metrics import volume_ml
from unc_jax.uncertainty.halves import HALF_COLUMNS
from unc_jax.uncertainty.measures import (
    MEASURES,
    PAPER_MEASURES,
    THRESHOLD,
    measure_all,
    standard_error,
)
from unc_jax.uncertainty.prediction import Prediction

# Tolerance of the surface Dice; the slices of most CT are thicker.
TOLERANCE_MM = 2.0


# A function of the samples of a case and the volume of a voxel, ml.
Column = Callable[[Prediction, float], float]


def _percentile(share: float) -> Column:
    return lambda one, voxel_ml: float(np.percentile(one.volumes, share)) * voxel_ml


def _standard_error(name: str) -> Column:
    return lambda one, _: standard_error(one, name)


# Columns in addition to the measures. To add one to both tables, add an entry; it
# follows the standard errors.
SAMPLE_COLUMNS: dict[str, Column] = {
    "n_samples": lambda one, _: len(one.volumes),
    "volume_ml": lambda one, voxel_ml: volume_ml(one.mean >= THRESHOLD, voxel_ml),
    "volume_sd_ml": lambda one, voxel_ml: float(one.volumes.std()) * voxel_ml,
    "volume_low_ml": _percentile(5),
    "volume_high_ml": _percentile(95),
    **{
        f"{name}_se": _standard_error(name)
        for name, one in MEASURES.items()
        if one.of_subsets is not None
    },
}
# Columns of SAMPLE_COLUMNS with a fixed place in the tables.
_VOLUMES = ("volume_ml", "volume_sd_ml", "volume_low_ml", "volume_high_ml")
_FURTHER = tuple(
    name for name in SAMPLE_COLUMNS if name not in ("n_samples", *_VOLUMES)
)

EVALUATION_COLUMNS = (
    *("case", "split", "n_samples", "dice"),
    *MEASURES,
    *("volume_ml", "volume_sd_ml", "reference_ml", "status"),
    *("volume_low_ml", "volume_high_ml", "seconds"),  # of segmentation
    "dice_scan",  # of the delivered mask, on the scan's own grid
    *_FURTHER,
    *Distances._fields,  # of the delivered mask, on the scan's own grid
    "structure",  # "" for a single, unnamed structure
    *HALF_COLUMNS,
)
# Components of the reference, share of them found, components of the mask that match
# none, mean Dice over the reference's components.
LESION_COLUMNS = ("lesions", "lesion_sensitivity", "false_positives", "lesion_dice")
REVIEW_COLUMNS = (
    *("case", "structure", "status", "flag", "reason", "predicted_dice", "dice_lower"),
    *("n_samples", *MEASURES),
    *_VOLUMES,
    *("unlike", "warnings", "dice", "reference_ml", "seconds", "input"),
    *_FURTHER,
    "released",
    *Distances._fields,
    *LESION_COLUMNS,
    "uncertain_where",  # text: ml of high uncertainty, place of its largest part
)
# Columns that older tables may lack.
OPTIONAL = (
    *set(MEASURES).difference(PAPER_MEASURES),
    *("dice_scan", *_FURTHER, "released", *Distances._fields, "structure"),
    *HALF_COLUMNS,
    *LESION_COLUMNS,
    "uncertain_where",
)
TEXT = (
    *("case", "structure", "split", "status", "flag", "reason", "released"),
    *("unlike", "warnings", "input", "uncertain_where"),
)
WHOLE = ("n_samples", "lesions", "false_positives")


def measure(prediction: Prediction, voxel_ml: float) -> dict[str, float]:
    """Returns the numbers of a row that need no reference.

    voxel_ml: volume of one voxel. For a single sample only its volume is returned.
    """
    if len(prediction.volumes) == 1:
        volume = SAMPLE_COLUMNS["volume_ml"](prediction, voxel_ml)
        return {"n_samples": 1, "volume_ml": volume}
    numbers = {name: one(prediction, voxel_ml) for name, one in SAMPLE_COLUMNS.items()}
    return numbers | measure_all(prediction)


def measure_distances(
    mask: np.ndarray, reference: np.ndarray, spacing_mm: Sequence[float]
) -> dict[str, float]:
    """Returns the distance columns of a row, for a delivered mask and its reference."""
    found = surface_distances(mask, reference, spacing_mm, tolerance_mm=TOLERANCE_MM)
    return found._asdict()
