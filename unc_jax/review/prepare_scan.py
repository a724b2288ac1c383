"""Preparation of a user's scan, in the way that a run prepared its training cases.

Evaluation stores the recipe, and what the training cases were like, in
RUN/preparation.json.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from unc_jax.data import files, preprocess
from unc_jax.data.cohort import Cohort
from unc_jax.data.geometry import Geometry
from unc_jax.data.preprocess import Box, zscore
from unc_jax.errors import InputError, counted
from unc_jax.study import cases_table
from unc_jax.study.cases_table import Row
from unc_jax.study.run_folder import RunFolder
from unc_jax.uncertainty.measures import PAPER_MEASURES

Range = tuple[float, float]

_DIGEST = "voxels_sha256"  # in a prepared case's record
_SMALLEST = 8  # voxels along an axis; fewer leave nothing for the network's levels


class Preparation(NamedTuple):
    """Recipe of a run's training cases, and the ranges that they lay in.

    Attributes:
      target, "liver" | "tumor"; window_hu, empty for none; outside_hu: as in the
        config.
      liver_labels, tumor_labels: values of the organ, tumours included, and of the
        tumours in the training cases.
      shape: voxels (x, y, z) that the network sees.
      normalisation: "population", by mean and std | each "case".
      spacing_mm: range of the scans' spacing over the training cases, per axis.
      ranges: measure or volume_ml -> its range over training and validation cases.
      trained_on: `copies.digest` of each training case's scan -> its id, without cases
        that an older version prepared; None for runs of older versions.
    """

    target: str
    shape: tuple[int, int, int]
    window_hu: tuple[float, ...]
    outside_hu: float | None
    liver_labels: tuple[int, ...]
    normalisation: str
    mean: float
    std: float
    spacing_mm: tuple[Range, Range, Range]
    ranges: dict[str, Range]
    tumor_labels: tuple[int, ...] = (2,)
    trained_on: dict[str, str] | None = None


class PreparedScan(NamedTuple):
    """Input of the network, made of a scan.

    Attributes:
      image: float32 z-scores (x, y, z).
      box: part of the scan that the image shows.
      voxel_ml: volume of a voxel of the image.
    """

    image: np.ndarray
    box: Box
    voxel_ml: float


def store_preparation(workdir: Path, cohort: Cohort, rows: list[Row]) -> None:
    """Writes RUN/preparation.json, from which `preparation_of` reads a Preparation.

    rows: of cases.csv; ranges are of training and validation cases.
    """
    settings, statistics = cohort.settings, cohort.statistics
    training = [cohort.records[cohort.ids.index(case)] for case in cohort.split.train]
    spacing = np.array(
        [Geometry.from_json(record["geometry"]).spacing_mm for record in training]
    )
    known = [row for row in rows if row["split"] != "test"]
    ranges = {}
    for name in (*PAPER_MEASURES, "volume_ml"):
        values = cases_table.column(known, name)
        values = values[~np.isnan(values)]
        if len(values):
            ranges[name] = [float(values.min()), float(values.max())]
    content = {
        "target": settings["target"],
        "shape": list(cohort.images.shape[1:]),
        "window_hu": settings["window_hu"],
        "outside_hu": settings["outside_hu"],
        "liver_labels": settings["liver_labels"],
        "tumor_labels": settings["tumor_labels"],
        "normalisation": statistics["normalisation"],
        "mean": statistics["mean"],
        "std": statistics["std"],
        "spacing_mm": np.stack([spacing.min(0), spacing.max(0)], 1).tolist(),
        "ranges": ranges,
        "trained_on": {r[_DIGEST]: r["id"] for r in training if _DIGEST in r},
    }
    if unknown := [r["id"] for r in training if _DIGEST not in r]:
        logging.warning(
            "%s: %s prepared by an older version; predict will not recognise copies of "
            "them. Delete the folder and train again, so that it does",
            cohort.path,
            counted(len(unknown), "training case"),
        )
    files.write_json(workdir / "preparation.json", content)


def preparation_of(run: RunFolder) -> Preparation:
    """Returns the recipe that a run stores; InputError when it has none."""
    path = run.path / "preparation.json"
    if run.preparation is None:
        raise InputError(f"no {path}: run --stage evaluate first")
    try:
        found = Preparation(**run.preparation)
        x, y, z = (int(size) for size in found.shape)
        first, second, third = ((float(a), float(b)) for a, b in found.spacing_mm)
        return found._replace(
            shape=(x, y, z),
            window_hu=tuple(found.window_hu),
            liver_labels=tuple(found.liver_labels),
            tumor_labels=tuple(found.tumor_labels),
            spacing_mm=(first, second, third),
            ranges={
                name: (float(a), float(b)) for name, (a, b) in found.ranges.items()
            },
            trained_on=None if found.trained_on is None else dict(found.trained_on),
        )
    except (TypeError, ValueError, AttributeError):
        raise InputError(
            f"{path} does not say how scans are prepared; run --stage evaluate again"
        ) from None


def check(array: np.ndarray) -> None:
    """Raises InputError for a scan too small for the network, or one with NaN."""
    if min(array.shape) < _SMALLEST:
        size = " x ".join(map(str, array.shape))
        raise InputError(
            f"a scan of {size} voxels; at least {_SMALLEST} along each axis are needed"
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("has NaN or infinite voxels; repair the scan")


def prepare_scan(
    image: np.ndarray,
    geometry: Geometry,
    preparation: Preparation,
    organ: np.ndarray | None = None,
) -> PreparedScan:
    """Prepares a scan (x, y, z) in canonical order as the training cases were.

    Rounds to float16, as prepared cohorts do. `organ`: mask of the scan's shape, for
    target "tumor". Raises ValueError for an empty organ, and InputError for a scan with
    NaN or Inf, or of one value after windowing.
    """
    label = np.broadcast_to(np.uint8(0), image.shape)
    found, measured = preprocess.prepare(
        image,
        label if organ is None else organ.view(np.uint8),
        preparation.target,
        shape=preparation.shape,
        window_hu=preparation.window_hu,
        outside_hu=preparation.outside_hu,
        liver_labels=(1,),
        tumor_labels=(2,),
    )
    if not np.isfinite(measured.squares):
        raise InputError("has NaN or infinite voxels; repair the scan")
    mean, std = preparation.mean, preparation.std
    if preparation.normalisation == "case":
        mean, std = measured.mean, measured.std
    if not std > 0:
        raise InputError(f"has one value ({mean:g}) in every voxel after windowing")
    rounded = zscore(found.image, mean, std).astype(np.float16).astype(np.float32)
    sides = [side.stop - side.start for side in found.box]
    share = np.prod(sides) / np.prod(preparation.shape)
    return PreparedScan(rounded, found.box, float(geometry.voxel_ml * share))
