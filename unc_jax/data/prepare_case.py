"""One prepared case of a cohort, from its scan to a file of its own."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data import nifti
from unc_jax.data.dataset import Case
from unc_jax.data.files import replacing
from unc_jax.data.preprocess import (
    Box,
    Moments,
    Prepared,
    bounding_box,
    cropped_affine,
    moments,
    prepare_liver,
    prepare_tumor,
    resample,
    resampled_affine,
    select,
)
from unc_jax.data.split import natural_order
from unc_jax.errors import InputError

# Enough places to centre patches on; a 256^3 liver has about twenty times as many.
MAX_FOREGROUND = 32768


class Recipe(NamedTuple):
    """What the voxels of a prepared case depend on, beside its scan."""

    target: str
    shape: tuple[int, int, int]
    window_hu: tuple[float, ...]
    outside_hu: float | None
    liver_labels: tuple[int, ...]
    tumor_labels: tuple[int, ...]


class Part(NamedTuple):
    """A case before normalisation.

    `image` float32 (x, y, z) in windowed HU; `label` uint8 0/1; `foreground` int16
    (k, 3), sorted places of the label, drawn where there are more than MAX_FOREGROUND;
    `record` plain JSON.
    """

    image: np.ndarray
    label: np.ndarray
    foreground: np.ndarray
    record: dict[str, Any]


def prepare_part(case: Case, recipe: Recipe) -> Part:
    """Reads one case and prepares it. Raises InputError naming the file."""
    assert case.label is not None
    scan, labels = nifti.read(case.image), nifti.read(case.label, labels=True)
    try:
        prepared = _prepared(scan.array, labels.array, recipe)
    except ValueError as error:
        raise InputError(f"{case.label}: {error}") from None
    # Outside the organ of a tumour case lies a marker, not a measurement.
    whole = recipe.target == "liver"
    measured = moments(prepared.image if whole else prepared.image[prepared.organ])
    if not np.isfinite(measured.squares):
        raise InputError(f"{case.image}: has NaN or infinite voxels; mend the scan")
    foreground, count = draw_foreground(prepared.target, case.id)
    wanted = recipe.liver_labels if whole else recipe.tumor_labels
    raw_voxels = np.count_nonzero(select(labels.array, wanted))
    record = {
        "id": case.id,
        **_grids(scan.geometry, prepared.box, recipe.shape),
        "reference_ml": scan.geometry.voxel_ml * int(raw_voxels),
        "tumor_free": not select(labels.array, recipe.tumor_labels).any(),
        "foreground_count": count,
        "moments": list(measured),
        "sha256": {"image": _digest(case.image), "label": _digest(case.label)},
    }
    return Part(prepared.image, prepared.target, foreground, record)


def _prepared(image: np.ndarray, label: np.ndarray, recipe: Recipe) -> Prepared:
    if recipe.target == "tumor":
        arguments = recipe._asdict()
        del arguments["target"]
        return prepare_tumor(image, label, **arguments)
    prepared, target = prepare_liver(
        image,
        label,
        shape=recipe.shape,
        window_hu=recipe.window_hu,
        liver_labels=recipe.liver_labels,
    )
    x, y, z = image.shape
    box = (slice(0, x), slice(0, y), slice(0, z))
    return Prepared(prepared, target, target.view(bool), box)


def _grids(
    geometry: nifti.Geometry, box: Box, shape: tuple[int, int, int]
) -> dict[str, Any]:
    """The scan's own grid, the part of it that is prepared, and the prepared grid."""
    sides = [side.stop - side.start for side in box]
    cropped = cropped_affine(geometry.canonical_affine, box)
    affine = resampled_affine(cropped, sides, shape)
    return {
        "geometry": geometry.to_json(),
        "raw_shape": list(geometry.canonical_shape),
        "box": [[side.start, side.stop] for side in box],
        "affine": affine.tolist(),
        "spacing_mm": np.linalg.norm(affine[:3, :3], axis=0).tolist(),
        "voxel_ml": float(abs(np.linalg.det(affine[:3, :3]))) / 1000.0,
    }


def rater_files(root: Path, case: str) -> list[Path]:
    """Lists ROOT/raters/CASE_r0.nii.gz, ..., in natural order; empty without any.

    They hold label maps of further raters on the grid of the case's own label.
    """
    names = {path.name for path in (root / "raters").glob(f"{case}_r*.nii.gz")}
    return [root / "raters" / name for name in natural_order(names)]


def prepare_raters(
    files: Sequence[Path], *, box: Box, shape: Sequence[int], values: Sequence[int]
) -> np.ndarray:
    """Returns the raters' masks of the labels `values`, bool (raters, x, y, z).

    Cropped to `box` (canonical voxels of the scan) and brought to `shape` by nearest
    voxel, as the label of the cohort was. Raises InputError naming an unreadable file.
    """
    maps = (nifti.read(file, labels=True).array for file in files)
    return np.stack([select(resample(one[box], shape, 0), values) for one in maps])


def organ_size(case: Case, liver_labels: Sequence[int]) -> tuple[int, int, int]:
    """Sides of the organ's bounding box, voxels (x, y, z) of the canonical scan.

    Reads the labels alone. Raises InputError naming a file without the organ.
    """
    assert case.label is not None
    mask = select(nifti.read(case.label, labels=True).array, liver_labels)
    try:
        x, y, z = (side.stop - side.start for side in bounding_box(mask))
    except ValueError:
        raise InputError(f"{case.label}: has no voxel of the organ") from None
    return x, y, z


def draw_foreground(label: np.ndarray, case_id: str) -> tuple[np.ndarray, int]:
    """Places of `label`, int16 (k, 3) in the order of memory, and how many there are.

    All of them, or MAX_FOREGROUND drawn uniformly without repetition, by the case's id:
    the draw does not change with the other cases.
    """
    places = np.flatnonzero(label)
    count = int(places.size)
    if count > MAX_FOREGROUND:
        digest = hashlib.sha256(case_id.encode()).digest()
        generator = np.random.default_rng([0, int.from_bytes(digest[:8], "big")])
        drawn = generator.choice(count, MAX_FOREGROUND, replace=False, shuffle=False)
        places = places[np.sort(drawn)]
    coordinates = np.stack(np.unravel_index(places, label.shape), axis=-1)
    return coordinates.astype(np.int16), count


def write_part(path: Path, part: Part) -> None:
    """Writes an uncompressed .npz, whole or not at all."""
    with replacing(path) as temporary:
        np.savez(
            temporary,
            image=part.image,
            label=part.label,
            foreground=part.foreground,
            record=np.array(json.dumps(part.record)),
        )


def read_part(path: Path) -> Part:
    with np.load(path, allow_pickle=False) as file:
        record = json.loads(str(file["record"]))
        return Part(file["image"], file["label"], file["foreground"], record)


def read_record(path: Path) -> dict[str, Any]:
    """The record alone; the voxels stay on the disk."""
    with np.load(path, allow_pickle=False) as file:
        return json.loads(str(file["record"]))


def moments_of(record: dict[str, Any]) -> Moments:
    count, mean, squares = record["moments"]
    return Moments(int(count), float(mean), float(squares))


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
