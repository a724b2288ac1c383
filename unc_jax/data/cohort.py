"""A prepared cohort: all cases of a task as memory-mapped arrays of one shape."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unc_jax.data import files, nifti, write_cohort
from unc_jax.data.dataset import Case, Task
from unc_jax.data.prepare_case import MAX_FOREGROUND, Recipe
from unc_jax.data.split import Split, read_split
from unc_jax.data.write_cohort import RECORDS, OnCase
from unc_jax.errors import InputError

_FORMAT = 1  # raise it when the same settings would give other arrays


class Cohort(NamedTuple):
    """Memory-mapped arrays of all cases, and their description.

    ids: ids of the cases, in the order of the arrays' first axis.
    images: float16 (cases, x, y, z), z-scored. The rounding error is at most 2^-11 of a
      value: 0.05 to 0.1 HU at the ends of the paper's windows, far below CT noise.
    labels: uint8 (cases, x, y, z), 0 or 1.
    foreground: int16 (cases, m, 3), voxel coordinates of label 1; only the first
      foreground_counts[i] of case i, int32 (cases,), are valid, the rest is 0.
    records: entries of cases.json (geometry, box, affine, voxel_ml, ...).
    statistics: mean and standard deviation by which `images` were normalised, ...
    fingerprint: hash of the settings, the split and the content of the source files.
    settings: the recipe, as JSON.
    """

    path: Path
    images: np.ndarray
    labels: np.ndarray
    foreground: np.ndarray
    foreground_counts: np.ndarray
    ids: tuple[str, ...]
    split: Split
    records: tuple[dict[str, Any], ...]
    statistics: dict[str, Any]
    fingerprint: str
    settings: dict[str, Any]

    @property
    def target_labels(self) -> list[int]:
        """Returns the label values that make up the target."""
        return list(Recipe(**self.settings).target_labels)


def prepare(
    source: Task,
    split: Split,
    destination: Path,
    recipe: Recipe,
    on_case: OnCase | None = None,
) -> Cohort:
    """Prepares the cases of `split` in destination/TARGET-KEY, and opens the result.

    KEY is a digest of the recipe, the split and the content of the scans: a finished
    folder is only opened, and another recipe has another folder. Digests of unchanged
    files are stored in destination/digests.json, so that a second run reads no scan. A
    killed preparation resumes after the last finished case; until all are finished,
    their float32 volumes are in `parts` (5 bytes per voxel in addition to the final 3).
    `on_case` is called with (done, total) after each case.

    Raises:
      InputError: cases are unreadable or have no organ (all in one message, after the
        others are finished), a case is unknown or has no label, the disk is full, all
        voxels of the training set are equal, or another process uses the folder.
    """
    cases, destination = _cases(source, split), Path(destination)
    settings = recipe.to_json()
    content = {"format": _FORMAT, "settings": settings, "split": split._asdict()}
    key = write_cohort.digest({**content, "files": _digests(cases, destination)})
    folder = destination / f"{recipe.target}-{key[:12]}"
    if not write_cohort.is_finished(folder):
        with files.hold(folder, "preparation"):
            write_cohort.write_cohort(folder, cases, split, recipe, content, on_case)
    return open_cohort(folder)


def open_cohort(path: Path) -> Cohort:
    """Opens a folder that `prepare` finished, reading no voxel.

    Raises InputError when the folder is missing, unfinished or damaged.
    """
    path = Path(path)
    try:
        content = json.loads((path / RECORDS).read_text(encoding="utf-8"))
        records = tuple(content["cases"])
        statistics = json.loads((path / "statistics.json").read_text(encoding="utf-8"))
        images = np.load(path / "images.npy", mmap_mode="r")
        labels = np.load(path / "labels.npy", mmap_mode="r")
        foreground = np.load(path / "foreground.npy")
        counts = [record["foreground_count"] for record in records]
        ids = tuple(record["id"] for record in records)
        fingerprint = content["fingerprint"]
        expected = (len(ids), *content["settings"]["shape"])
        if images.shape != expected or labels.shape != expected:
            raise ValueError(f"arrays are not of shape {expected}")
    except FileNotFoundError as error:
        name = Path(error.filename).name
        raise InputError(
            f"{path} is not a prepared cohort (it has no {name})"
        ) from None
    except (OSError, ValueError, KeyError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{path} is damaged ({cause}); delete it") from None
    return Cohort(
        path,
        images,
        labels,
        foreground,
        np.minimum(counts, MAX_FOREGROUND).astype(np.int32),
        ids,
        read_split(path / "split.json", ids),
        records,
        statistics,
        fingerprint,
        content["settings"],
    )


def read_image(cohort: Cohort, case: str) -> np.ndarray:
    """Reads the image of a case, float32 (x, y, z)."""
    return np.asarray(cohort.images[cohort.ids.index(case)], np.float32)


def _cases(source: Task, split: Split) -> list[Case]:
    """Returns the split's cases in the order of the task."""
    chosen = {case for part in split for case in part}
    cases = [case for case in source.training if case.id in chosen]
    if missing := chosen - {case.id for case in cases}:
        raise InputError(f"split names cases not in {source.root}: {sorted(missing)}")
    if unlabelled := [case.id for case in cases if case.label is None]:
        raise InputError(f"{source.root}: cases without a label: {unlabelled}")
    return cases


def _digests(cases: Sequence[Case], destination: Path) -> list[list[str]]:
    """Returns the case id and SHA-256 of every image and label.

    Files with unchanged size and times are not read again (destination/digests.json).
    """
    record = destination / "digests.json"
    try:
        known = dict(json.loads(record.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError):
        known = {}
    before, problems = dict(known), []
    scans = [(case.id, scan) for case in cases for scan in (case.image, case.label)]
    for name, scan in ((str(scan.absolute()), scan) for _, scan in scans if scan):
        parts = nifti.files_of(scan)
        try:
            stamps = [files.stamp(path) for path in parts]
            if (known.get(name) or [None])[0] != stamps:
                known[name] = [stamps, files.digest(parts)]
        except OSError as error:
            problems.append(f"{error.filename}: {error.strerror}")
    write_cohort.raise_all(problems, len(cases))
    if known != before:
        files.write_json(record, known)
    return [[case, known[str(scan.absolute())][1]] for case, scan in scans if scan]
