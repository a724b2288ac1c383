"""Writing of a cohort's folder; it can be killed and resumed at any point."""

import functools
import hashlib
import json
import math
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unc_jax.data import nifti, prepare_case
from unc_jax.data.dataset import Case
from unc_jax.data.files import replacing, write_json, write_npy
from unc_jax.data.parallel import READ_NS, in_order, map_cases
from unc_jax.data.prepare_case import MAX_FOREGROUND, Recipe
from unc_jax.data.preprocess import Moments, zscore
from unc_jax.data.split import Split, write_split
from unc_jax.errors import InputError, counted

RECORDS = "cases.json"  # written last: a folder that has it is complete
_CASES = "parts"  # one file per case, until the arrays of all cases are written
_SHAPE = "shape.json"
_THREADS = 4  # for normalisation; each holds a float32 image, 67 MB at 256^3

OnCase = Callable[[int, int], None]


def is_finished(folder: Path) -> bool:
    """Tells whether the cohort in `folder` is complete."""
    return (folder / RECORDS).exists() and not (folder / _CASES).exists()


def write_cohort(
    folder: Path,
    cases: Sequence[Case],
    split: Split,
    recipe: Recipe,
    content: dict[str, Any],
    on_case: OnCase | None,
) -> None:
    """Writes the missing files in `folder`, whose lock must be held.

    First each case is written to its own file; with the statistics of the training
    cases the arrays are written, then their description; then the case files are
    removed.

    Args:
      content: settings that the arrays depend on, besides the scans, for the
        description.
    """
    if not (folder / RECORDS).exists():
        if recipe.shape == "auto":
            shape = _mean_shape(folder, cases, split, recipe.liver_labels)
            recipe = recipe._replace(shape=shape)
        _write_cases(folder, cases, recipe, on_case)
        _write_arrays(folder, cases, split, recipe, content)
    shutil.rmtree(folder / _CASES, ignore_errors=True)


def bytes_needed(shape: Sequence[int] | str, left: int, cases: int) -> int:
    """Returns the bytes of disk that preparation needs for `left` of `cases` cases.

    Per voxel these are 5 bytes (float32 image, label) for each case file still to be
    written and 3 bytes (float16 image, label) for the final arrays of each case.
    """
    return math.prod(map(int, shape)) * (5 * left + 3 * cases)


def digest(value: Any) -> str:
    """Returns the SHA-256 of plain JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def raise_all(problems: Sequence[object], total: int) -> None:
    """Raises one InputError that lists all problems, if there are any."""
    if problems:
        listed = "; ".join(map(str, problems))
        count = f"{counted(len(problems), 'problem')} in {counted(total, 'case')}"
        raise InputError(f"{count}: {listed}; repair them or leave the cases out")


def _mean_shape(
    folder: Path, cases: Sequence[Case], split: Split, liver_labels: Sequence[int]
) -> list[int]:
    """Returns the mean size of the organ's box over the test cases; cached on disk."""
    file = folder / _SHAPE
    if not file.exists():
        sizes, problems = [], []
        for case in (case for case in cases if case.id in split.test):
            try:
                sizes.append(prepare_case.organ_size(case, liver_labels))
            except InputError as error:
                problems.append(error)
        raise_all(problems, len(split.test))
        write_json(file, [round(float(size)) for size in np.mean(sizes, axis=0)])
    return json.loads(file.read_text())


def _write_cases(
    folder: Path, cases: Sequence[Case], recipe: Recipe, on_case: OnCase | None
) -> None:
    left = [case for case in cases if not _file(folder, case).exists()]
    _check_space(folder, bytes_needed(recipe.shape, len(left), len(cases)))
    prepare = functools.partial(_write_part, folder, recipe)
    grid = nifti.largest_grid([case.image for case in left])
    voxels = max(grid, math.prod(map(int, recipe.shape)))
    problems = []
    found = map_cases(prepare, left, voxels=voxels, voxel_ns=READ_NS)
    for done, problem in enumerate(found, len(cases) - len(left) + 1):
        problems += problem
        if on_case:
            on_case(done, len(cases))
    raise_all(problems, len(cases))


def _write_part(folder: Path, recipe: Recipe, case: Case) -> list[InputError]:
    """Writes the file of one case; returns the errors of its scan."""
    try:
        prepared = prepare_case.prepare_case(case, recipe)
    except InputError as error:
        return [error]
    prepare_case.write_case(_file(folder, case), prepared)
    return []


def _write_arrays(
    folder: Path,
    cases: Sequence[Case],
    split: Split,
    recipe: Recipe,
    content: dict[str, Any],
) -> None:
    records = [prepare_case.read_record(_file(folder, case)) for case in cases]
    statistics = _statistics(records, split, recipe)
    scales = [_scale(record, statistics) for record in records]
    shape = (len(cases), *map(int, recipe.shape))
    width = max(r["foreground_count"] for r in records if r["id"] in split.train)
    if not width:
        raise InputError(
            f"no training case has a voxel of the target (labels "
            f"{', '.join(map(str, recipe.target_labels))}); set "
            "data.liver_labels or data.tumor_labels"
        )
    width = min(MAX_FOREGROUND, max(r["foreground_count"] for r in records))
    foreground = np.zeros((len(cases), width, 3), np.int16)
    with (
        replacing(folder / "images.npy") as image_path,
        replacing(folder / "labels.npy") as label_path,
        open(image_path, "wb") as images,
        open(label_path, "wb") as labels,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        _write_header(images, np.dtype(np.float16), shape)
        _write_header(labels, np.dtype(np.uint8), shape)

        def normalise(index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            part = prepare_case.read_case(_file(folder, cases[index]))
            image = _as_float16(zscore(part.image, *scales[index]), cases[index].id)
            return image, part.label, part.foreground

        finished = in_order(pool, normalise, range(len(cases)), ahead=_THREADS)
        for index, (image, label, places) in enumerate(finished):
            images.write(image.data)
            labels.write(label.data)
            foreground[index, : len(places)] = places
    write_npy(folder / "foreground.npy", foreground)
    write_split(folder / "split.json", split)
    write_json(folder / "statistics.json", statistics)
    content = {**content, "settings": recipe.to_json()}
    sources = [[record["id"], record["sha256"]] for record in records]
    fingerprint = digest({**content, "sources": sources})
    finished = {"fingerprint": fingerprint, **content, "cases": records}
    write_json(folder / RECORDS, finished)


def _as_float16(image: np.ndarray, case: str) -> np.ndarray:
    """Returns z-scores as they are stored; raises InputError where they do not fit."""
    with np.errstate(over="ignore"):
        found = image.astype(np.float16)
    if not np.isfinite(found).all():
        raise InputError(
            f"case {case}: has voxels {np.abs(image).max():.3g} standard deviations "
            "from the mean, too many for float16; set data.window_hu, or data."
            'normalisation to "case"'
        )
    return found


def _statistics(
    records: Sequence[dict[str, Any]], split: Split, recipe: Recipe
) -> dict[str, Any]:
    """Returns the statistics of the training cases, for either normalisation."""
    total = Moments(0, 0.0, 0.0)
    for record in records:
        if record["id"] in split.train:
            total = total.merged(Moments(*record["moments"]))
    if not total.std > 0:
        raise InputError(
            f"the training set has one value ({total.mean:g}) in every voxel after "
            "windowing; correct the scans or the window"
        )
    return {
        "normalisation": recipe.normalisation,
        "region": "volume" if recipe.target == "liver" else "organ",
        "mean": total.mean,
        "std": total.std,
        "voxels": total.count,
        "cases": len(split.train),
    }


def _scale(record: dict[str, Any], statistics: dict[str, Any]) -> tuple[float, float]:
    """Returns the mean and standard deviation that a case is normalised by."""
    if statistics["normalisation"] == "case":
        own = Moments(*record["moments"])
        return own.mean, own.std
    return statistics["mean"], statistics["std"]


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder}: preparing needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are "
            "free; make room, or choose another folder for prepared data"
        )


def _write_header(file: BinaryIO, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    descr = np.lib.format.dtype_to_descr(dtype)
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _file(folder: Path, case: Case) -> Path:
    return folder / _CASES / f"{case.id}.npz"
