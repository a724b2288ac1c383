"""One prepared case of a cohort, from its scan to a file of its own."""

import hashlib
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data import copies, nifti, preprocess
from unc_jax.data.dataset import Case
from unc_jax.data.files import digest, read_npz, replacing
from unc_jax.data.geometry import Geometry, voxels_apart
from unc_jax.data.preprocess import Box, box_of, select
from unc_jax.data.resampling import cropped_affine, resample, resampled_affine
from unc_jax.data.split import natural_order
from unc_jax.data.verify import AFFINE_LIMIT
from unc_jax.errors import InputError

# Enough places to centre patches on; a 256^3 liver has about twenty times as many.
MAX_FOREGROUND = 32768
_READERS = 4  # files of raters at a time; unpacking needs one core each


class Recipe(NamedTuple):
    """Settings that a prepared cohort depends on, beside its scans.

    target: "liver" (`preprocess.prepare_liver`) or "tumor" (`prepare_tumor`).
    shape: voxels (x, y, z), or "auto" (tumor): the mean size of the split's test cases
      after cropping, as in the paper, from a first pass over their labels.
    window_hu, outside_hu, liver_labels, tumor_labels: as in `preprocess`;
      `outside_hu` counts for tumor alone.
    normalisation: "population" z-scores by mean and standard deviation of the training
      cases together, "case" each case by its own, after windowing.
    """

    target: str
    shape: Sequence[int] | str
    window_hu: Sequence[float]
    outside_hu: float | None
    liver_labels: Sequence[int]
    tumor_labels: Sequence[int]
    normalisation: str

    @property
    def target_labels(self) -> Sequence[int]:
        """Returns the label values of the target."""
        return self.liver_labels if self.target == "liver" else self.tumor_labels

    def to_json(self) -> dict[str, Any]:
        """Returns plain JSON, the same for recipes that prepare the same."""
        outside = None if self.target == "liver" else self.outside_hu
        shape = self.shape
        return {
            "target": self.target,
            "shape": shape if isinstance(shape, str) else [int(s) for s in shape],
            "window_hu": [float(value) for value in self.window_hu],
            "outside_hu": None if outside is None else float(outside),
            "liver_labels": [int(value) for value in self.liver_labels],
            "tumor_labels": [int(value) for value in self.tumor_labels],
            "normalisation": self.normalisation,
        }


class PreparedCase(NamedTuple):
    """A case before normalisation.

    `image` float32 (x, y, z) in windowed HU; `label` uint8 0/1; `foreground` int16
    (k, 3), sorted places of the label, drawn where there are more than MAX_FOREGROUND;
    `record` plain JSON, the case's entry in cases.json.
    """

    image: np.ndarray
    label: np.ndarray
    foreground: np.ndarray
    record: dict[str, Any]


def prepare_case(case: Case, recipe: Recipe) -> PreparedCase:
    """Reads one case and prepares it. Raises InputError naming the file."""
    assert case.label is not None
    scan, labels = nifti.read(case.image), nifti.read(case.label, labels=True)
    arguments = recipe._asdict()
    del arguments["normalisation"]
    try:
        prepared, moments = preprocess.prepare(scan.array, labels.array, **arguments)
    except ValueError as error:
        raise InputError(f"{case.label}: {error}") from None
    if not np.isfinite(moments.squares):
        raise InputError(f"{case.image}: has NaN or infinite voxels; repair the scan")
    if recipe.normalisation == "case" and not moments.std > 0:
        raise InputError(
            f"{case.image}: has one value ({moments.mean:g}) in every voxel after "
            "windowing; correct the scan or the window"
        )
    foreground, count = draw_foreground(prepared.target, case.id)
    raw_voxels = np.count_nonzero(select(labels.array, recipe.target_labels))
    record = {
        "id": case.id,
        **_grids(scan.geometry, prepared.box, prepared.image.shape),
        "reference_ml": scan.geometry.voxel_ml * int(raw_voxels),
        "tumor_free": not select(labels.array, recipe.tumor_labels).any(),
        "foreground_count": count,
        "moments": list(moments),
        "sha256": {
            "image": digest(nifti.files_of(case.image)),
            "label": digest(nifti.files_of(case.label)),
        },
        "voxels_sha256": copies.digest(scan.array),
    }
    return PreparedCase(prepared.image, prepared.target, foreground, record)


def rater_files(root: Path, case: str) -> list[Path]:
    """Lists ROOT/raters/CASE_r0.nii.gz, ..., in natural order; empty without any.

    They hold label maps of further raters on the grid of the case's own label.
    """
    own = re.compile(re.escape(case) + r"_r\d+\.nii\.gz")  # not those of CASE_rescan
    found = (path.name for path in (root / "raters").glob("*.nii.gz"))
    names = {name for name in found if own.fullmatch(name)}
    return [root / "raters" / name for name in natural_order(names)]


def prepare_raters(
    files: Sequence[Path],
    record: dict[str, Any],
    *,
    shape: Sequence[int],
    values: Sequence[int],
) -> np.ndarray:
    """Returns the raters' masks of the labels `values`, bool (raters, x, y, z).

    Cropped as the case of `record` was (its entry in cases.json) and brought to `shape`
    by nearest voxel, as its label was. Raises InputError naming a file that is not
    readable or does not lie on the scan's grid.
    """
    grid, box = Geometry.from_json(record["geometry"]), box_of(record["box"])

    def prepare(file: Path) -> np.ndarray:
        labels, placed = nifti.read(file, labels=True)
        if (
            placed.canonical_shape != grid.canonical_shape
            or voxels_apart(grid, placed) > AFFINE_LIMIT
        ):
            raise InputError(f"{file}: does not lie on the grid of its scan")
        return select(resample(labels[box], shape, 0), values)

    with ThreadPoolExecutor(_READERS) as pool:
        return np.stack(list(pool.map(prepare, files)))


def organ_size(case: Case, liver_labels: Sequence[int]) -> tuple[int, int, int]:
    """Returns the sides of the organ's bounding box, canonical voxels (x, y, z).

    Reads the labels alone. Raises InputError naming a file without the organ.
    """
    assert case.label is not None
    mask = select(nifti.read(case.label, labels=True).array, liver_labels)
    try:
        x, y, z = (side.stop - side.start for side in preprocess.bounding_box(mask))
    except ValueError:
        raise InputError(f"{case.label}: has no voxel of the organ") from None
    return x, y, z


def draw_foreground(label: np.ndarray, case_id: str) -> tuple[np.ndarray, int]:
    """Returns places of `label`, int16 (k, 3) in memory order, and how many exist.

    All of them, or MAX_FOREGROUND drawn uniformly without repetition, by the case's id:
    the draw does not change with the other cases.
    """
    places = np.flatnonzero(label)
    count = int(places.size)
    if count > MAX_FOREGROUND:
        own = hashlib.sha256(case_id.encode()).digest()
        generator = np.random.default_rng([0, int.from_bytes(own[:8], "big")])
        drawn = generator.choice(count, MAX_FOREGROUND, replace=False, shuffle=False)
        places = places[np.sort(drawn)]
    coordinates = np.stack(np.unravel_index(places, label.shape), axis=-1)
    return coordinates.astype(np.int16), count


def write_case(path: Path, case: PreparedCase) -> None:
    """Writes an uncompressed .npz, whole or not at all."""
    arrays = {**case._asdict(), "record": np.array(json.dumps(case.record))}
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def read_case(path: Path) -> PreparedCase:
    """Reads what `write_case` wrote."""
    *arrays, record = read_npz(path, PreparedCase._fields)
    return PreparedCase(*arrays, record=json.loads(str(record)))


def read_record(path: Path) -> dict[str, Any]:
    """Reads the record alone; the voxels stay on the disk."""
    (record,) = read_npz(path, ["record"])
    return json.loads(str(record))


def _grids(geometry: Geometry, box: Box, shape: Sequence[int]) -> dict[str, Any]:
    """Returns the scan's grid, the part of it that is prepared, the prepared grid."""
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
