"""Preparation of a user's scan, in the way that a run prepared its training cases.

Evaluation stores the recipe, and what the training cases were like, in
RUN/preparation.json.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import logging

from unc_jax.data import copies, files, preprocess
from unc_jax.data.cohort import Cohort
from unc_jax.data.geometry import Geometry, header_notes
from unc_jax.data.preprocess import Box, zscore
from unc_jax.errors import InputError, counted
from unc_jax.study import cases_table
from unc_jax.study.cases_table import Row
from unc_jax.study.run_folder import RunFolder
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

Range = tuple[float, float]

_DIGEST = "voxels_sha256"  # in a prepared case's record
_AIR_HU, _BONE_HU = -200, 150
_AIR_SHARE = 0.02  # of the voxels; even a scan cut tight to the body shows lung or air
_SLACK = 1.25  # the volume may leave the training range by this factor
# Scans are resampled to one shape, which evens spacing out: up to twice as fine or as
# coarse as in training is seen in every hospital and changes little.
_SPACING_SLACK = 2
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


def intensity_warnings(image: np.ndarray, preparation: Preparation) -> Iterator[str]:
    """Yields a warning when voxels (x, y, z) do not look like Hounsfield units.

    Every eighth voxel is read. A run without a window of HU (MR) has no scale to hold
    a scan to.
    """
    if not preparation.window_hu:
        return
    seen = image[::2, ::2, ::2]
    low, high = float(seen.min()), float(seen.max())
    if low > _AIR_HU or float((seen < _AIR_HU).mean()) < _AIR_SHARE:
        yield f"does not look like CT in HU: hardly any air (lowest value {low:g})"
    elif high < _BONE_HU:
        yield f"does not look like CT in HU: no bone (highest value {high:g})"
    elif low < -5000 or high > 50_000:
        yield f"does not look like CT in HU: values from {low:g} to {high:g}"


def geometry_warnings(geometry: Geometry, preparation: Preparation) -> Iterator[str]:
    """Yields a warning for a missing or odd geometry, and per unusual spacing."""
    yield from header_notes(geometry)
    known = zip("xyz", geometry.spacing_mm, preparation.spacing_mm, strict=True)
    for axis, size, (low, high) in known:
        if not low / _SPACING_SLACK <= size <= high * _SPACING_SLACK:
            yield (
                f"spacing along {axis} is {size:.3g} mm, {low:.3g} to {high:.3g} mm in "
                "training"
            )


def leak_warnings(image: np.ndarray, preparation: Preparation) -> Iterator[str]:
    """Yields a warning when the network was trained on a scan with these voxels."""
    if preparation.trained_on:
        case = preparation.trained_on.get(copies.digest(image))
        if case is not None:
            yield f"has the voxels of {case}, a training case of the run"


def border_warnings(mask: np.ndarray) -> Iterator[str]:
    """Yields the sides of the scan (canonical order) that the segmentation touches."""
    sides = {
        "left": mask[0],
        "right": mask[-1],
        "back": mask[:, 0],
        "front": mask[:, -1],
        "bottom": mask[:, :, 0],
        "top": mask[:, :, -1],
    }
    # RAS+: the first x plane is the patient's left side.
    touched = [name for name, plane in sides.items() if plane.any()]
    if touched:
        yield f"touches the scan's border ({', '.join(touched)}): may be cut off"


def unlike(
    values: Mapping[str, float | None], ranges: Mapping[str, Range]
) -> list[str]:
    """Returns measures worse than in any training or validation case, and odd volumes.

    ranges: measure or volume_ml -> its range over those cases.
    """
    found = []
    for name in PAPER_MEASURES:
        value = values.get(name)
        if name in ranges and value is not None:
            low, high = ranges[name]
            if (value < low) if MEASURES[name].sign > 0 else (value > high):
                found.append(name)
    volume = values.get("volume_ml")
    if volume is not None and "volume_ml" in ranges:
        low, high = ranges["volume_ml"]
        if not low / _SLACK <= volume <= high * _SLACK:
            found.append("volume_ml")
    return found
