"""Scores one case: measures its structures, compares them, writes maps and pictures."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import nifti
from unc_jax.data.geometry import Geometry, header_notes, same_grid
from unc_jax.data.resampling import cropped_affine
from unc_jax.errors import InputError
from unc_jax.review import by_structure, component_rows, pictures
from unc_jax.review.case_files import all_of_case, file_of_case
from unc_jax.review.reduce_case import (
    Reduced,
    reduce_one,
    reduce_several,
    reference_of,
)
from unc_jax.review.sample_arrays import Unplaced
from unc_jax.review.scans import TAKEN
from unc_jax.review.structures import Wanted, map_values
from unc_jax.review.uncertain_part import describe_uncertainty
from unc_jax.study import case_columns, cases_table, metrics
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.cases_table import EMPTY, OK, ONE_SAMPLE, Row
from unc_jax.study.components import (
    Lesions,
    compare_lesions,
    find_components,
    outside_largest,
)
from unc_jax.uncertainty.prediction import Prediction

# Masks of as many voxels that are all equal are copies. Two of several are only if the
# others differ in as many voxels: nearly certain masks agree by chance.
_LARGE, _DISPUTED = 1000, 100
_DRAWN = 6  # structures with a picture, those whose samples agree least; 0.5 s each


class Scored(NamedTuple):
    """Rows of cases.csv and of components.csv, of one case or more."""

    rows: list[Row]
    components: list[Row]


class ScoreRequest(NamedTuple):
    """Options of the command, the same for every case; None: folder not given."""

    output: Path
    wanted: Wanted = Wanted()
    references: Path | None = None
    images: Path | None = None
    window: tuple[float, float] = pictures.WINDOW_HU
    largest: bool = False  # keep only the largest component of a mask

    def read(self, cases: Iterable[str]) -> list[Path]:
        """Returns the files of references and images of cases."""
        folders = [one for one in (self.references, self.images) if one]
        both = itertools.product(folders, cases)
        found = (all_of_case(folder, case, ("", "_0000")) for folder, case in both)
        return [*itertools.chain.from_iterable(found)]


class Image(NamedTuple):
    """Background of a case's pictures: its scan, or the mean of the samples.

    array: None without a scan.
    """

    array: np.ndarray | None = None
    window: tuple[float, float] = (0.0, 1.0)
    warning: str = ""


def check_name(case: str) -> None:
    """Raises InputError for a case whose name cannot be that of an output folder."""
    if case.casefold() in TAKEN or not case.isprintable() or not case.strip("."):
        raise InputError(
            f"case {case}: cannot be the name of an output folder; rename it"
        )


def score_case(case: str, paths: Sequence[Path], request: ScoreRequest) -> Scored:
    """Writes the maps of a case and its pictures; returns its rows.

    For one structure these are CASE/{mask,mean,uncertainty}.nii.gz and
    pictures/CASE.png; for several CASE/mask.nii.gz with one value per structure
    (`map_values`), CASE/uncertainty.nii.gz with the voxelwise maximum, and
    pictures/CASE/STRUCTURE.png. A single sample has no measures; without a grid,
    columns in ml and mm are empty. Raises InputError that names the file for samples
    that cannot be read or do not share a grid, and for a reference that is missing or
    on another grid.
    """
    source = str(paths[0].parent if len(paths) > 1 else paths[0])
    reference = reference_of(case, request.references)
    if request.wanted.single:
        geometry, one = reduce_one(paths, request.wanted, reference)
        scored = _score_one(case, one, geometry, request, source)
    else:
        geometry, found = reduce_several(paths, request.wanted, reference)
        scored = _score_several(case, found, geometry, request, source)
    if isinstance(geometry, Unplaced):
        for row in (*scored.rows, *scored.components):
            row.update({n: None for n in row if n.endswith(("_ml", "_mm"))})
    if not scored.rows:
        row = cases_table.new_row(REVIEW_COLUMNS, case=case, status=EMPTY, input=source)
        scored.rows.append(row)
    return scored


def _score_one(
    case: str, one: Reduced, geometry: Geometry, request: ScoreRequest, source: str
) -> Scored:
    image = _image(case, request, geometry)
    row, parts = _measure(case, one, image, geometry, request)
    folder = request.output / case
    for name in ("mean", "uncertainty"):
        path = folder / f"{name}.nii.gz"
        nifti.write(path, getattr(one.outcome, name), geometry, np.float32)
    nifti.write(folder / "mask.nii.gz", one.mask, geometry, np.uint8)
    _draw(request.output / "pictures" / f"{case}.png", one, image, geometry)
    return Scored([{**row, "input": source}], parts)


def _score_several(
    case: str,
    found: Iterable[Reduced],
    geometry: Geometry,
    request: ScoreRequest,
    source: str,
) -> Scored:
    image = _image(case, request, geometry)
    labels = np.zeros(geometry.canonical_shape, np.int16)
    uncertainty = np.zeros(geometry.canonical_shape, np.float32)
    scored, drawn = Scored([], []), []
    values = map_values(request.wanted.listed)
    for one in found:
        row, parts = _measure(case, one, image, geometry, request)
        scored.rows.append({**row, "input": source})
        scored.components.extend(parts)
        name, numbers = one.structure
        if name not in values:  # a label without a name
            used, own = [*values.values()], numbers[0]
            values[name] = max(*used, own) + 1 if own in used else own
        labels[one.box][one.mask] = values[name]
        if values[name] not in numbers:
            told = f"has the value {values[name]} in mask.nii.gz"
            scored.rows[-1] = cases_table.with_warnings(scored.rows[-1], told)
        greatest = uncertainty[one.box]
        np.maximum(greatest, one.outcome.uncertainty, out=greatest)
        drawn = sorted([*drawn, (row["d_pw"], len(scored.rows), one)])[:_DRAWN]
    folder = request.output / case
    kept = np.int16 if labels.max(initial=0) > 255 else np.uint8
    nifti.write(folder / "mask.nii.gz", labels, geometry, kept)
    nifti.write(folder / "uncertainty.nii.gz", uncertainty, geometry, np.float32)
    for _, _, one in drawn:
        name = by_structure.picture_name(case, one.structure.name)
        _draw(request.output / "pictures" / name, one, image, geometry)
    return scored


def _measure(
    case: str, one: Reduced, image: Image, geometry: Geometry, request: ScoreRequest
) -> tuple[Row, list[Row]]:
    """Returns the row of a structure and those of its components."""
    removed = _leave_largest(one, geometry) if request.largest else []
    mask, known, some = one.mask, {}, len(one.outcome.volumes) > 1
    affine = cropped_affine(geometry.canonical_affine, one.box)
    found, count = find_components(
        one.outcome, affine, one.reference, most=component_rows.MOST
    )
    more = f"{count} components, of which {len(found)} are listed"
    if one.reference is not None:
        known = {
            "dice": metrics.dice(mask, one.reference),
            "reference_ml": metrics.volume_ml(one.reference, geometry.voxel_ml),
            **case_columns.measure_distances(mask, one.reference, geometry.spacing_mm),
            **_lesions(compare_lesions(mask, one.reference)),
        }
    warnings = [*removed, *_notes(one.outcome, geometry), image.warning, one.warning]
    warnings.append(more if count > len(found) else "")
    where = ""
    if some and not isinstance(geometry, Unplaced):
        spread = one.outcome.uncertainty
        where = describe_uncertainty(mask, spread, geometry.spacing_mm)
    row = cases_table.new_row(
        REVIEW_COLUMNS,
        case=case,
        structure=one.structure.name,
        status=(OK if some else ONE_SAMPLE) if mask.any() else EMPTY,
        **case_columns.measure(one.outcome, geometry.voxel_ml),
        **known,
        unlike=cases_table.IDENTICAL if _has_copies(one.outcome) else "",
        warnings="; ".join(filter(None, warnings)),
        uncertain_where=where,
    )
    return row, component_rows.rows_of(case, one.structure.name, found)


def _notes(outcome: Prediction, geometry: Geometry) -> Iterator[str]:
    """Yields warnings about the samples together, and about the grid of the first."""
    if outcome.identical:
        yield "all samples are identical"
    elif _has_copies(outcome):
        count = len(outcome.volumes)
        yield f"{outcome.copies} of {count} samples are copies of others"
    if _share_nothing(outcome):
        yield "no voxel is in two samples: are they different structures?"
    if outcome.mixed:
        yield "some samples are masks: all count as masks, so there is no U_labelled"
    if isinstance(geometry, Unplaced):
        grid = "x".join(map(str, geometry.shape))
        yield (
            "nothing tells the size of a voxel and the directions of the axes: no ml "
            "and mm, and pictures and maps have voxels of 1 mm; read as "
            f"{len(outcome.volumes)} samples of {grid} voxels"
        )
    yield from header_notes(geometry)


def _share_nothing(outcome: Prediction) -> bool:
    """Tells whether masks, two or more of them not empty, have no voxel in common."""
    count = len(outcome.volumes)
    several = int(np.count_nonzero(outcome.volumes)) > 1
    return outcome.hard and several and float(outcome.mean.max()) < 1.5 / count


def _has_copies(outcome: Prediction) -> bool:
    """Tells whether samples are copies; masks of a small structure may agree."""
    if not outcome.hard or not outcome.copies:
        return outcome.copies > 0
    apart = np.count_nonzero((outcome.mean > 0) & (outcome.mean < 1))
    large = float(np.median(outcome.volumes)) >= _LARGE
    return large and (outcome.identical or int(apart) >= _DISPUTED)


def _lesions(found: Lesions) -> dict[str, float]:
    share = found.found / found.count if found.count else np.nan
    values = found.count, share, found.false_positives, found.dice
    return dict(zip(case_columns.LESION_COLUMNS, values, strict=True))


def _leave_largest(one: Reduced, geometry: Geometry) -> list[str]:
    """Sets the mean to 0 in all but the largest component of the mask; says of what."""
    rest, count = outside_largest(one.mask)
    one.outcome.mean[rest] = 0
    voxel_ml = np.nan if isinstance(geometry, Unplaced) else geometry.voxel_ml
    return component_rows.removed_words(rest, count, voxel_ml)


def _draw(path: Path, one: Reduced, image: Image, geometry: Geometry) -> None:
    """Writes the picture of a structure; slices count along the whole grid."""

    def whole(part: np.ndarray) -> np.ndarray:
        if part.shape == geometry.canonical_shape:
            return part
        array = np.zeros(geometry.canonical_shape, part.dtype)
        array[one.box] = part
        return array

    most = float(np.log(2)) if one.outcome.hard else pictures.MAX_UNCERTAINTY
    pictures.write_picture(
        path,
        whole(one.outcome.mean) if image.array is None else image.array,
        whole(one.mask),
        whole(one.outcome.uncertainty),
        geometry.spacing_mm,
        reference=None if one.reference is None else whole(one.reference),
        window=image.window,
        uncertainty_max=most,
        is_scan=image.array is not None,
    )


def _image(case: str, request: ScoreRequest, geometry: Geometry) -> Image:
    if request.images is None:
        return Image()
    path = file_of_case(request.images, case, ("", "_0000"))
    scan = nifti.read(path) if path else None
    if scan is None or not same_grid(geometry, scan.geometry):
        return Image(warning="no image on the grid of the samples: their mean is drawn")
    return Image(scan.array, request.window)
