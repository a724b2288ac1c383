"""Scoring of one case: its samples are measured, compared, drawn and written."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import files, nifti
from unc_jax.data.nifti import Geometry
from unc_jax.errors import InputError
from unc_jax.review import pictures
from unc_jax.review.read_samples import beside, read_mask, read_sample, same_grid
from unc_jax.review.scans import TAKEN
from unc_jax.study import appraisal, cases_table, charts, figures, metrics
from unc_jax.study.cases_table import EMPTY, EVALUATION_COLUMNS, OK, REVIEW_COLUMNS, Row
from unc_jax.uncertainty.measures import THRESHOLD
from unc_jax.uncertainty.prediction import Prediction, reduce_maps


class Request(NamedTuple):
    """Options of the command, the same for every case; folders may be None."""

    output: Path
    labels: tuple[int, ...] = ()
    references: Path | None = None
    images: Path | None = None
    window: tuple[float, float] = pictures.WINDOW_HU


def score_case(case: str, paths: Sequence[Path], request: Request) -> Row:
    """Writes CASE/{mask,mean,uncertainty}.nii.gz and a picture; returns the row.

    Raises InputError, naming the file, for samples that cannot be read or do not share
    a grid, fewer than two of them, and a reference that is missing or elsewhere.
    """
    if case.casefold() in TAKEN or not case.isprintable() or not case.strip("."):
        raise InputError(f"case {case}: no name for a folder of the output; rename it")
    if len(paths) < 2:
        raise InputError(f"{paths[0]}: the only sample of {case}; 2 or more are needed")
    outcome, geometry = _reduced(paths, request.labels)
    mask = outcome.mean >= THRESHOLD
    reference = _reference(case, request, geometry)
    # One network asked again and again, without its dropout, gives identical samples.
    warnings = ["all samples are identical"] if outcome.identical else []
    image, window = outcome.mean, (0.0, 1.0)
    if request.images is not None:
        scan = _image(case, request.images, geometry)
        if scan is None:
            warnings.append("no image on the grid of the samples: their mean is drawn")
        else:
            image, window = scan, request.window
    folder = request.output / case
    nifti.write(folder / "mean.nii.gz", outcome.mean, geometry, np.float32)
    nifti.write(
        folder / "uncertainty.nii.gz", outcome.uncertainty, geometry, np.float32
    )
    nifti.write(folder / "mask.nii.gz", mask, geometry, np.uint8)
    pictures.write_picture(
        request.output / "pictures" / f"{case}.png",
        image,
        mask,
        outcome.uncertainty,
        geometry.spacing_mm,
        reference=reference,
        window=window,
        uncertainty_max=float(np.log(2)) if outcome.hard else pictures.MAX_UNCERTAINTY,
    )
    known = {}
    if reference is not None:
        known["dice"] = metrics.dice(mask, reference)
        known["reference_ml"] = metrics.volume_ml(reference, geometry.voxel_ml)
        known |= cases_table.measure_distances(mask, reference, geometry.spacing_mm)
    return cases_table.new_row(
        REVIEW_COLUMNS,
        case=case,
        status=OK if mask.any() else EMPTY,
        **cases_table.measure(outcome, geometry.voxel_ml),
        **known,
        warnings="; ".join(warnings),
        input=str(paths[0].parent),
    )


def write_study(rows: list[Row], folder: Path) -> None:
    """Writes the statistics of a study whose test cases are the cases with a Dice."""
    studied = [
        cases_table.new_row(
            EVALUATION_COLUMNS,
            **{name: row.get(name) for name in EVALUATION_COLUMNS if name != "split"},
            split="test",
        )
        for row in rows
    ]
    cases_table.write_rows(folder / "cases.csv", studied, EVALUATION_COLUMNS)
    files.write_json(folder / "summary.json", appraisal.summarise(studied))
    figures.save(charts.figure2({"": studied}), folder / "figure2.png")


def _reduced(
    paths: Sequence[Path], labels: Sequence[int]
) -> tuple[Prediction, Geometry]:
    """Reads one sample after the other; returns their reduction and their grid."""
    grids: list[Geometry] = []

    def maps() -> Iterator[np.ndarray]:
        for path in paths:
            sample = read_sample(path, labels)
            grids.append(sample.geometry)
            if not same_grid(grids[0], sample.geometry):
                raise InputError(
                    f"{path}: not on the grid of {paths[0]}; resample one to the other"
                )
            yield sample.array

    return reduce_maps(maps()), grids[0]


def _reference(case: str, request: Request, geometry: Geometry) -> np.ndarray | None:
    if request.references is None:
        return None
    path = beside(request.references, case)
    if path is None:
        raise InputError(f"{request.references}: no {case}.nii.gz or {case}.nii")
    found = read_mask(path, request.labels)
    if not same_grid(geometry, found.geometry):
        raise InputError(f"{path}: not on the grid of the samples; resample it")
    return found.array


def _image(case: str, folder: Path, geometry: Geometry) -> np.ndarray | None:
    path = beside(folder, case, ("", "_0000"))
    if path is None:
        return None
    scan = nifti.read(path)
    return scan.array if same_grid(geometry, scan.geometry) else None
