"""Segmentation of one scan by a trained run, in memory.

Scans and results are arrays (x, y, z) in RAS+ order on the scan's own grid.
"""

import hashlib
import json
from typing import NamedTuple

import numpy as np

from unc_jax.config import flat_config, from_flat
from unc_jax.data import scan_maps
from unc_jax.data.nifti import Geometry
from unc_jax.data.preprocess import Box
from unc_jax.data.scan_maps import Maps
from unc_jax.errors import InputError
from unc_jax.review import (
    component_rows,
    novelty,
    prepare_scan,
    quality,
    rule,
    scan_warnings,
)
from unc_jax.review.novelty import Novelty
from unc_jax.review.prepare_scan import Preparation
from unc_jax.review.quality import LEVEL, Quality
from unc_jax.segmentation.models import precision_of
from unc_jax.study import case_columns, cases_table, metrics, run_folder
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.cases_table import Row
from unc_jax.study.components import outside_largest
from unc_jax.study.predictor import Predictor, load_predictor
from unc_jax.study.run_folder import RunFolder
from unc_jax.study.tables import number
from unc_jax.uncertainty.measures import MEASURES, THRESHOLD
from unc_jax.uncertainty.prediction import Prediction


class Segmenter(NamedTuple):
    """A trained run that is ready to segment scans.

    Attributes:
      preparation: preprocessing of the network's input.
      predictor: functions that sample a prepared image.
      fingerprint: digest of all settings and weights that the results depend on.
      quality: map from measures to predicted Dice; None: no predicted Dice.
      level: level of the lower bound of the predicted Dice.
      novelty: distance of a scan from the training cases; None: not computed.
      liver: segmenter of the liver, for a run with target "tumor".
    """

    run: RunFolder
    preparation: Preparation
    predictor: Predictor
    fingerprint: str
    quality: Quality | None = None
    level: float = LEVEL
    liver: "Segmenter | None" = None
    novelty: Novelty | None = None


class Segmentation(NamedTuple):
    """Result for one scan.

    Attributes:
      mask: bool (x, y, z), mean foreground probability >= 0.5.
      mean: mean foreground probability over the samples, float32 (x, y, z).
      uncertainty: U(x) of the paper, float32 (x, y, z), nats.
      measures: value of each of `MEASURES`; None where undefined.
      predicted_dice, dice_lower: predicted Dice and its lower bound at the segmenter's
        level; None where the run predicts none or the level supports none.
      flags: reasons for a human to review the case; () without any.
      warnings: unusual properties of the scan or its segmentation.
      row: all numbers as a row of a review's table, without names and predicted Dice.
      prediction, box: the reduced samples on the prepared grid, and the part of the
        scan that this grid spans; None if no liver was found.
    """

    mask: np.ndarray
    mean: np.ndarray
    uncertainty: np.ndarray
    measures: dict[str, float | None]
    predicted_dice: float | None
    dice_lower: float | None
    flags: tuple[str, ...]
    warnings: tuple[str, ...]
    row: Row
    prediction: Prediction | None
    box: Box | None


def build_segmenter(
    run: RunFolder,
    *,
    quality: Quality | None = None,
    level: float = LEVEL,
    liver: Segmenter | None = None,
) -> Segmenter:
    """Loads the network that the rows of a run were made with.

    Raises InputError when its checkpoint is missing, or the run is incomplete.
    """
    config = from_flat(run.config, run.path / "config.json")
    preparation = prepare_scan.preparation_of(run)
    if liver is not None and liver.preparation.target != "liver":
        raise InputError(f"{liver.run.path} does not segment the liver")
    steps = run_folder.evaluated_steps(run.path)
    predictor = load_predictor(config, run.path, preparation.shape, steps=steps)
    known = (run.evaluation or {}).get("checkpoints", list(predictor.digests))
    if known != list(predictor.digests):
        raise InputError(
            f"{run.path}: the checkpoint of step {steps} is not the one that its rows "
            "were made with; run --stage evaluate --replace-rows"
        )
    content = {
        "config": flat_config(config),
        # Runs without digests keep the results of versions that knew none.
        "preparation": preparation if preparation.trained_on else preparation[:-1],
        "checkpoints": predictor.digests,
        "precision": precision_of(config),
        "columns": REVIEW_COLUMNS,
        "liver": liver and liver.fingerprint,
        "features": run.features,
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    known = novelty.of_run(run)
    return Segmenter(run, preparation, predictor, digest, quality, level, liver, known)


def segment(
    array: np.ndarray,
    geometry: Geometry,
    segmenter: Segmenter,
    organ: np.ndarray | None = None,
    *,
    largest: bool = False,
) -> Segmentation:
    """Segments a scan (x, y, z) in canonical order; writes nothing.

    All scans are sampled with the same N dropout masks: the result depends only on the
    scan's voxels and geometry.

    array: voxels; for CT in Hounsfield units. organ: mask of the liver, for runs with
    target "tumor"; None: it is segmented by `segmenter.liver`. largest: keep only the
    largest component of the mask; a warning says what was removed.

    Raises InputError when the scan is too small, not finite or constant, or when the
    liver is needed and neither given nor segmented.
    """
    prepare_scan.check(array)
    preparation = segmenter.preparation
    foreign = list(scan_warnings.of_intensities(array, preparation))
    seen = list(scan_warnings.of_copies(array, preparation))
    warnings = [*foreign, *scan_warnings.of_geometry(geometry, preparation), *seen]
    if preparation.target == "liver":
        organ = None
    elif organ is None:
        organ, note = _find_liver(array, geometry, segmenter)
        warnings.append(note)
    if organ is not None and not organ.any():
        empty = np.zeros(array.shape, np.float32)
        row = cases_table.new_row(
            REVIEW_COLUMNS,
            status=cases_table.NO_LIVER,
            unlike=cases_table.LEAKED if seen else "",
        )
        return _result(Maps(empty > 0, empty, empty), row, warnings, segmenter)
    prepared = prepare_scan.prepare_scan(array, geometry, preparation, organ)
    prediction = segmenter.predictor.predict(prepared.image, None).on_host()
    if not np.isfinite(prediction.mean).all():
        raise FloatingPointError("probabilities are not finite")
    maps = scan_maps.on_scan(
        prediction.mean, prediction.uncertainty, geometry, prepared.box
    )
    voxel_ml = _voxel_ml(prediction, maps.mask, geometry, prepared.voxel_ml)
    numbers = case_columns.measure(prediction, voxel_ml)
    if largest:
        warnings += _leave_largest(maps, geometry.voxel_ml)
        numbers["volume_ml"] = metrics.volume_ml(maps.mask, geometry.voxel_ml)
    warnings += scan_warnings.of_border(maps.mask)
    unlike = [cases_table.LEAKED] if seen else []
    unlike += ["intensities"] if foreign else []
    unlike += ["features"] if _is_novel(prepared.image, segmenter) else []
    unlike += scan_warnings.unlike(numbers, preparation.ranges)
    row = cases_table.new_row(
        REVIEW_COLUMNS,
        status=cases_table.OK if maps.mask.any() else cases_table.EMPTY,
        unlike=", ".join(unlike),
        **numbers,
    )
    found = _result(maps, row, warnings, segmenter)
    return found._replace(prediction=prediction, box=prepared.box)


def _is_novel(image: np.ndarray, segmenter: Segmenter) -> bool:
    known = segmenter.novelty
    return bool(known) and novelty.is_novel(known, segmenter.predictor.features(image))


def _leave_largest(maps: Maps, voxel_ml: float) -> list[str]:
    """Sets mask and mean to 0 outside the largest component; returns a warning."""
    rest, count = outside_largest(maps.mask)
    maps.mask[rest], maps.mean[rest] = False, 0
    return component_rows.removed_words(rest, count, voxel_ml)


def _voxel_ml(
    prediction: Prediction, mask: np.ndarray, geometry: Geometry, prepared_ml: float
) -> float:
    """Returns the voxel size, ml, that gives the prepared mask its volume on the scan.

    The volumes of the samples are computed with it.
    """
    voxels = np.count_nonzero(prediction.mean >= THRESHOLD)
    return (
        metrics.volume_ml(mask, geometry.voxel_ml) / voxels if voxels else prepared_ml
    )


def _result(
    maps: Maps, row: Row, warnings: list[str], segmenter: Segmenter
) -> Segmentation:
    judged = quality.with_estimate(row, segmenter.quality, segmenter.level)
    return Segmentation(
        *maps,
        measures={name: judged[name] for name in MEASURES},  # type: ignore[misc]
        predicted_dice=judged["predicted_dice"],  # type: ignore[arg-type]
        dice_lower=judged["dice_lower"],  # type: ignore[arg-type]
        flags=tuple(rule.reasons(judged, rule.Rule())),
        warnings=tuple(warnings),
        row={**row, "warnings": "; ".join(warnings)},
        prediction=None,
        box=None,
    )


def _find_liver(
    array: np.ndarray, geometry: Geometry, segmenter: Segmenter
) -> tuple[np.ndarray, str]:
    """Segments the liver by another run; returns its mask and a note with its measures.

    Measures and predicted Dice of tumours are calibrated with the reference liver, by
    which the paper crops; the note says that this is not the reference.
    """
    if segmenter.liver is None:
        raise InputError(
            f"{segmenter.run.path} segments tumours within the liver; give a mask of "
            "the liver, or a run that segments it"
        )
    found = segment(array, geometry, segmenter.liver)
    name, sure = segmenter.liver.run.path.name, found.measures
    if not found.mask.any():
        return found.mask, f"{name} found no liver"
    told = f"D_pw {number(sure['d_pw'], '.3f')}, CV {number(sure['cv'], '.3g')}"
    note = (
        f"liver found by {name} ({told}, U {number(sure['u_labelled'], '.3f')}), not "
        "the reference liver that the run was trained with"
    )
    leaks = scan_warnings.of_copies(array, segmenter.liver.preparation)
    return found.mask, "; ".join([note, *(f"{name}: {one}" for one in leaks)])
