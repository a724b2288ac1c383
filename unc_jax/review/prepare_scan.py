"""Preparation of a scan of other origin as a run prepared its training cases.

Evaluation stores the recipe, and what the training cases were like, in
RUN/preparation.json.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.config import Config
from unc_jax.data import files
from unc_jax.data.cohort import Cohort
from unc_jax.data.nifti import Geometry
from unc_jax.data.preprocess import Box, moments, prepare_liver, prepare_tumor, zscore
from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.cases_table import Row
from unc_jax.study.run_folder import Run
from unc_jax.uncertainty.measures import PAPER_MEASURES

Range = tuple[float, float]


class Preparation(NamedTuple):
    """The recipe of the training cases, and where they lay.

    Attributes:
      target: "liver" | "tumor"; shape: (x, y, z) the network sees; window_hu, empty for
        none; outside_hu; liver_labels: as in the config.
      normalisation: "population", by mean and std | each "case".
      spacing_mm: range of the scans' spacing over the training cases, per axis.
      ranges: measure or volume_ml -> its range over training and validation cases.
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


class Prepared(NamedTuple):
    """float32 z-scores (x, y, z), the part of the scan they show, their voxel size."""

    image: np.ndarray
    box: Box
    voxel_ml: float


def store_preparation(
    workdir: Path, config: Config, cohort: Cohort, rows: list[Row]
) -> None:
    """Writes RUN/preparation.json; ranges are of training and validation cases."""
    known = [row for row in rows if row["split"] != "test"]
    ranges = {}
    for name in (*PAPER_MEASURES, "volume_ml"):
        values = cases_table.column(known, name)
        values = values[~np.isnan(values)]
        if len(values):
            ranges[name] = float(values.min()), float(values.max())
    files.write_json(workdir / "preparation.json", describe(config, cohort, ranges))


def preparation_of(run: Run) -> Preparation:
    """Returns how scans are prepared for a run; InputError when it does not say."""
    path = run.path / "preparation.json"
    if run.preparation is None:
        raise InputError(f"no {path}: run --stage evaluate first")
    return from_json(run.preparation, str(path))


def describe(
    config: Config, cohort: Cohort, ranges: dict[str, Range]
) -> dict[str, Any]:
    """Plain JSON from which `from_json` makes a Preparation."""
    data, statistics = config.data, cohort.statistics
    training = (cohort.records[cohort.ids.index(case)] for case in cohort.split.train)
    spacing = np.array(
        [Geometry.from_json(record["geometry"]).spacing_mm for record in training]
    )
    return {
        "target": data.target,
        "shape": list(cohort.images.shape[1:]),
        "window_hu": list(data.window_hu),
        "outside_hu": data.outside_hu,
        "liver_labels": list(data.liver_labels),
        "normalisation": statistics["normalisation"],
        "mean": statistics["mean"],
        "std": statistics["std"],
        "spacing_mm": np.stack([spacing.min(0), spacing.max(0)], 1).tolist(),
        "ranges": {name: list(pair) for name, pair in ranges.items()},
    }


def from_json(content: Any, source: str) -> Preparation:
    """Reads `describe`; InputError names `source` when it is something else."""
    try:
        found = Preparation(**content)
        x, y, z = (int(size) for size in found.shape)
        low, high, top = ((float(a), float(b)) for a, b in found.spacing_mm)
        return found._replace(
            shape=(x, y, z),
            window_hu=tuple(found.window_hu),
            liver_labels=tuple(found.liver_labels),
            spacing_mm=(low, high, top),
            ranges={
                name: (float(a), float(b)) for name, (a, b) in found.ranges.items()
            },
        )
    except (TypeError, ValueError, AttributeError):
        raise InputError(
            f"{source} does not say how scans are prepared; run --stage evaluate again"
        ) from None


def prepare_scan(
    image: np.ndarray,
    geometry: Geometry,
    preparation: Preparation,
    organ: np.ndarray | None = None,
) -> Prepared:
    """A scan (x, y, z) in canonical order as the network saw its training cases.

    Rounded to float16, as prepared cohorts are. `organ`: mask of the scan's shape, for
    target "tumor". Raises ValueError for an empty organ, and InputError for a scan with
    NaN or Inf, or of one value after windowing.
    """
    recipe = {"shape": preparation.shape, "window_hu": preparation.window_hu}
    if preparation.target == "liver":
        nothing = np.broadcast_to(np.uint8(0), image.shape)
        seen, _ = prepare_liver(image, nothing, liver_labels=(1,), **recipe)
        x, y, z = image.shape
        box = (slice(0, x), slice(0, y), slice(0, z))
        measured = moments(seen)
    else:
        assert organ is not None
        outside = preparation.outside_hu
        found = prepare_tumor(
            image,
            organ.view(np.uint8),
            outside_hu=outside,
            liver_labels=(1,),
            tumor_labels=(2,),
            **recipe,
        )
        seen, box = found.image, found.box
        measured = moments(seen[found.organ])
    if not np.isfinite(measured.squares):
        raise InputError("has NaN or infinite voxels; mend the scan")
    mean, std = preparation.mean, preparation.std
    if preparation.normalisation == "case":
        mean, std = measured.mean, measured.std
    if not std > 0:
        raise InputError(f"has one value ({mean:g}) in every voxel after windowing")
    rounded = zscore(seen, mean, std).astype(np.float16).astype(np.float32)
    sides = [side.stop - side.start for side in box]
    share = np.prod(sides) / np.prod(preparation.shape)
    return Prepared(rounded, box, float(geometry.voxel_ml * share))
