"""Putting a cohort's folder together, in an order that a kill at any point survives."""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unc_jax.data import prepare_case
from unc_jax.data.dataset import Case
from unc_jax.data.files import replacing, write_json, write_npy
from unc_jax.data.prepare_case import MAX_FOREGROUND, Recipe, moments_of
from unc_jax.data.preprocess import Moments, zscore
from unc_jax.data.split import Split, write_split
from unc_jax.errors import InputError

RECORDS = "cases.json"  # written last: a folder that has it is complete
_PARTS = "parts"
_SHAPE = "shape.json"

OnCase = Callable[[int, int], None]


def is_finished(folder: Path) -> bool:
    return (folder / RECORDS).exists() and not (folder / _PARTS).exists()


def finish(
    folder: Path,
    cases: Sequence[Case],
    split: Split,
    content: dict[str, Any],
    on_case: OnCase | None,
) -> None:
    """Does what is left to do in `folder`; its lock must be held.

    First each case goes to a file of its own, then the statistics of the training
    cases are known and the arrays are written, then their description, then the case
    files go.

    Args:
      content: "settings" and what else the arrays depend on, beside the scans.
    """
    for path in (*folder.glob(".tmp-*"), *folder.glob(f"{_PARTS}/.tmp-*")):
        path.unlink()
    if not (folder / RECORDS).exists():
        recipe = _recipe(folder, cases, split, content["settings"])
        _write_parts(folder, cases, recipe, on_case)
        _assemble(folder, cases, split, recipe, content)
    shutil.rmtree(folder / _PARTS, ignore_errors=True)


def digest(value: Any) -> str:
    """SHA-256 of plain JSON, in hexadecimal."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def raise_all(problems: Sequence[str], total: int) -> None:
    """One InputError for all problems; none when there are none."""
    if problems:
        raise InputError(
            f"{len(problems)} problems in {total} cases: {'; '.join(problems)}; mend "
            "them or leave the cases out"
        )


def _recipe(
    folder: Path, cases: Sequence[Case], split: Split, settings: dict[str, Any]
) -> Recipe:
    shape = settings["shape"]
    if shape == "auto":
        shape = _mean_shape(folder, cases, split, settings["liver_labels"])
    x, y, z = shape
    return Recipe(
        target=settings["target"],
        shape=(x, y, z),
        window_hu=tuple(settings["window_hu"]),
        outside_hu=settings["outside_hu"],
        liver_labels=tuple(settings["liver_labels"]),
        tumor_labels=tuple(settings["tumor_labels"]),
    )


def _mean_shape(
    folder: Path, cases: Sequence[Case], split: Split, liver_labels: Sequence[int]
) -> list[int]:
    """Mean size of the organ's box over the test cases, rounded; found only once."""
    file = folder / _SHAPE
    if not file.exists():
        sizes, problems = [], []
        for case in (case for case in cases if case.id in split.test):
            try:
                sizes.append(prepare_case.organ_size(case, liver_labels))
            except InputError as error:
                problems.append(str(error))
        raise_all(problems, len(split.test))
        write_json(file, [round(float(size)) for size in np.mean(sizes, axis=0)])
    return json.loads(file.read_text())


def _write_parts(
    folder: Path, cases: Sequence[Case], recipe: Recipe, on_case: OnCase | None
) -> None:
    left = [case for case in cases if not _part(folder, case).exists()]
    # Float32 image and label per part, float16 image and label at the end.
    voxels = int(np.prod(recipe.shape)) * (5 * len(left) + 3 * len(cases))
    _check_space(folder, voxels)
    problems = []
    for done, case in enumerate(left, len(cases) - len(left) + 1):
        try:
            prepare_case.write_part(
                _part(folder, case), prepare_case.prepare_part(case, recipe)
            )
        except InputError as error:
            problems.append(str(error))
        if on_case:
            on_case(done, len(cases))
    raise_all(problems, len(cases))


def _assemble(
    folder: Path,
    cases: Sequence[Case],
    split: Split,
    recipe: Recipe,
    content: dict[str, Any],
) -> None:
    records = [prepare_case.read_record(_part(folder, case)) for case in cases]
    settings = {**content["settings"], "shape": list(recipe.shape)}
    statistics = _statistics(records, split, settings)
    scales = [_scale(record, statistics) for record in records]
    shape = (len(cases), *recipe.shape)
    width = min(MAX_FOREGROUND, max(r["foreground_count"] for r in records))
    foreground = np.zeros((len(cases), width, 3), np.int16)
    with (
        replacing(folder / "images.npy") as image_path,
        replacing(folder / "labels.npy") as label_path,
        open(image_path, "wb") as images,
        open(label_path, "wb") as labels,
    ):
        _write_header(images, np.dtype(np.float16), shape)
        _write_header(labels, np.dtype(np.uint8), shape)
        for index, case in enumerate(cases):
            part = prepare_case.read_part(_part(folder, case))
            images.write(zscore(part.image, *scales[index]).astype(np.float16).data)
            labels.write(part.label.data)
            foreground[index, : len(part.foreground)] = part.foreground
    write_npy(folder / "foreground.npy", foreground)
    write_split(folder / "split.json", split)
    write_json(folder / "statistics.json", statistics)
    content = {**content, "settings": settings}
    sources = [[record["id"], record["sha256"]] for record in records]
    fingerprint = digest({**content, "sources": sources})
    finished = {"fingerprint": fingerprint, **content, "cases": records}
    write_json(folder / RECORDS, finished)


def _statistics(
    records: Sequence[dict[str, Any]], split: Split, settings: dict[str, Any]
) -> dict[str, Any]:
    """Of the training cases alone, whatever the normalisation."""
    total = Moments(0, 0.0, 0.0)
    for record in records:
        if record["id"] in split.train:
            total = total.merged(moments_of(record))
    return {
        "normalisation": settings["normalisation"],
        "region": "volume" if settings["target"] == "liver" else "organ",
        "mean": total.mean,
        "std": total.std,
        "voxels": total.count,
        "cases": len(split.train),
    }


def _scale(record: dict[str, Any], statistics: dict[str, Any]) -> tuple[float, float]:
    """Mean and standard deviation that a case is normalised by."""
    if statistics["normalisation"] == "case":
        own = moments_of(record)
        mean, std, whose = own.mean, own.std, f"case {record['id']}"
    else:
        mean, std, whose = statistics["mean"], statistics["std"], "the training set"
    if not std > 0:
        raise InputError(
            f"{whose} has one value ({mean:g}) in every voxel after windowing; mend "
            "the scans or the window"
        )
    return mean, std


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


def _part(folder: Path, case: Case) -> Path:
    return folder / _PARTS / f"{case.id}.npz"
