"""Samples of a segmentation that another tool made: masks or probability maps.

A sample is a NIfTI file (labels, or probabilities of the organ) or an .npz file. An
.npz holds one array, or one called `probabilities`: (x, y, z), or (classes, z, y, x)
as nnU-Net writes them; its grid is that of the NIfTI file of the same name beside it,
or of its 4x4 array `affine` (voxel -> RAS mm).
"""

import os
import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import nifti
from unc_jax.data.nifti import Geometry
from unc_jax.data.split import natural_order
from unc_jax.errors import InputError

DEFAULT_PATTERN = "{case}/{sample}"
# An .npz before the NIfTI file of the same name: it says more than the labels do.
_SUFFIXES = (".npz", ".nii.gz", ".nii")
_LIKE_SAMPLES = re.compile(
    r"(fold|sample|model|seed|member|run|mc|rater)[-_ ]?\d+", re.IGNORECASE
)
_TOLERANCE = 1e-3  # of probabilities beyond 0 ... 1, which interpolation leaves
_SOFTMAX_TOLERANCE = 0.02  # of a sum over classes, each rounded to float16
_GRID_MM = 1e-2


class Sample(NamedTuple):
    """A sample: foreground probabilities (x, y, z) in RAS+ order; bool of a mask."""

    array: np.ndarray
    geometry: Geometry


def find_samples(root: Path, pattern: str = DEFAULT_PATTERN) -> dict[str, list[Path]]:
    """Returns the files of each case, {case: [file of sample, ...]}, in natural order.

    `pattern` is a path below `root` with {case} and {sample} in it, and * for what does
    not matter, e.g. "fold_{sample}/{case}.nii.gz"; without a suffix any will do.
    Raises InputError when there is no such folder, the pattern lacks a name, nothing
    fits it, or folders look like samples where cases are expected.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder of samples")
    expression = _expression(pattern)
    found: dict[str, dict[str, Path]] = {}
    others = []
    for path in _files(root, depth=pattern.count("/")):
        relative = path.relative_to(root).as_posix()
        match = expression.fullmatch(relative)
        if not match:
            others.append(relative)
            continue
        case = found.setdefault(match["case"], {})
        kept = case.setdefault(match["sample"], path)
        case[match["sample"]] = min(
            kept, path, key=lambda p: _SUFFIXES.index(_suffix(p))
        )
    if not found:
        hint = f"; there is {others[0]}, say by --pattern what in it" if others else ""
        hint += " is {case} and what {sample}" if others else ""
        raise InputError(f"{root}: no .nii.gz, .nii or .npz fits {pattern!r}{hint}")
    if pattern == DEFAULT_PATTERN and all(_LIKE_SAMPLES.fullmatch(c) for c in found):
        first = natural_order(found)[0]
        raise InputError(
            f"{root}: folders such as {first} look like samples, not cases; say "
            "--pattern '*{sample}/{case}', or --pattern '{case}/{sample}*' if they "
            "are cases"
        )
    return {
        case: [found[case][sample] for sample in natural_order(found[case])]
        for case in natural_order(found)
    }


def read_sample(path: Path, labels: Sequence[int] = ()) -> Sample:
    """Reads one sample; `labels` together are the organ.

    Integers are labels; without `labels` they must be 0 and one other value. Floats
    within 0 ... 1 are probabilities of the organ, other floats must be whole: labels.
    Raises InputError, naming the file, for anything else, NaN included.
    """
    if path.suffix == ".npz":
        return _read_npz(path, labels)
    scan = nifti.read(path)
    return Sample(_foreground(scan.array, labels, path), scan.geometry)


def read_mask(path: Path, labels: Sequence[int] = ()) -> Sample:
    """Reads a reference: `labels` together, or, without any, all that is not 0."""
    array, geometry = nifti.read(path, labels=True)
    return Sample(np.isin(array, labels) if labels else array != 0, geometry)


def same_grid(one: Geometry, other: Geometry) -> bool:
    """Tells whether voxels lie at the same places, to 0.01 mm, in whatever order."""
    return one.canonical_shape == other.canonical_shape and np.allclose(
        one.canonical_affine, other.canonical_affine, rtol=0, atol=_GRID_MM
    )


def beside(folder: Path, case: str, endings: Sequence[str] = ("",)) -> Path | None:
    """Returns the file of a case in a folder, e.g. CASE.nii.gz; None without one."""
    for ending in endings:
        for suffix in (".nii.gz", ".nii"):
            path = Path(folder) / f"{case}{ending}{suffix}"
            if path.is_file():
                return path
    return None


def _expression(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"(\{case\}|\{sample\}|\*)", pattern)
    if sorted(p for p in parts if p[:1] == "{") != ["{case}", "{sample}"]:
        raise InputError(
            f"pattern {pattern!r} must hold {{case}} and {{sample}} once each, e.g. "
            "'fold_{sample}/{case}'"
        )
    special = {
        "{case}": r"(?P<case>[^/]+)",
        "{sample}": r"(?P<sample>[^/]+)",
        "*": "[^/]*",
    }
    text = "".join(special.get(part, re.escape(part)) for part in parts)
    if not pattern.endswith(_SUFFIXES):
        text += "(?:" + "|".join(map(re.escape, _SUFFIXES)) + ")"
    return re.compile(text)


def _files(root: Path, depth: int) -> list[Path]:
    """Returns files with a known suffix, without hidden ones, pipes and devices.

    One folder deeper than the pattern: an example for the message when nothing fits.
    """
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        level = len(Path(folder).relative_to(root).parts)
        folders[:] = [f for f in sorted(folders) if f[0] != "." and level <= depth]
        found += [
            Path(folder) / f
            for f in sorted(files)
            if f[0] != "." and f.endswith(_SUFFIXES) and Path(folder, f).is_file()
        ]
    return found


def _suffix(path: Path) -> str:
    return next(s for s in _SUFFIXES if path.name.endswith(s))


def _foreground(array: np.ndarray, labels: Sequence[int], path: Path) -> np.ndarray:
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not np.isfinite([low, high]).all():
            raise InputError(f"{path}: holds NaN or infinity; mend the map")
        whole = np.rint(array)
        is_whole = np.allclose(array, whole, rtol=0, atol=_TOLERANCE)
        # Whole numbers are labels once labels are asked for: 1 need not be the organ.
        if low >= -_TOLERANCE and high <= 1 + _TOLERANCE and not (labels and is_whole):
            return np.clip(array, 0, 1, dtype=np.float32)
        if not is_whole:
            raise InputError(
                f"{path}: values from {low:.3g} to {high:.3g} are no probabilities and "
                "no labels; logits need a softmax or sigmoid first"
            )
        array = whole
    if labels:
        return np.isin(array, labels)
    present = [value for value in np.unique(array).tolist() if value != 0]
    if len(present) > 1:
        shown = ", ".join(f"{value:g}" for value in present[:6])
        raise InputError(f"{path}: labels {shown}; choose the organ's by --label")
    return array != 0


def _read_npz(path: Path, labels: Sequence[int]) -> Sample:
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = [n for n in stored.files if n != "affine"]
            name = "probabilities" if "probabilities" in names else names[0]
            array = stored[name]
            affine = stored["affine"] if "affine" in stored.files else None
    except (OSError, ValueError, IndexError, EOFError) as error:
        cause = " ".join(str(error).split()) or "it is empty"
        raise InputError(f"{path}: cannot be read ({cause})") from None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}); copy it again") from None
    if array.ndim == 4:
        array = _of_classes(array, labels, path)
    elif array.ndim == 3:
        array = _foreground(np.asarray(array), labels, path)
    else:
        raise InputError(
            f"{path}: shape {array.shape}; (x, y, z) or (classes, z, y, x)"
        )
    geometry = _grid_of(path, affine, array.shape)
    return Sample(nifti.to_canonical(array, geometry), geometry)


def _of_classes(array: np.ndarray, labels: Sequence[int], path: Path) -> np.ndarray:
    classes = len(array)
    chosen = list(labels) or ([1] if classes == 2 else [])
    if not chosen or max(chosen) >= classes:
        raise InputError(f"{path}: {classes} classes; choose the organ's by --label")
    everything = np.sum(array, axis=0, dtype=np.float32)
    if np.abs(everything - 1).max() > _SOFTMAX_TOLERANCE:
        raise InputError(
            f"{path}: its channels sum to {everything.min():.3g} to "
            f"{everything.max():.3g}, not 1: they are regions, no classes; give masks, "
            "or one map (x, y, z) of the organ"
        )
    total = np.sum(array[chosen], axis=0, dtype=np.float32).T
    low, high = float(total.min()), float(total.max())
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):
        raise InputError(
            f"{path}: values from {low:.3g} to {high:.3g}, no probabilities"
        )
    return np.clip(total, 0, 1)


def _grid_of(path: Path, affine: np.ndarray | None, shape: tuple[int, ...]) -> Geometry:
    if affine is not None:
        x, y, z = shape
        return Geometry((x, y, z), np.asarray(affine, float))
    sibling = beside(path.parent, path.name.removesuffix(".npz"))
    if sibling is None:
        raise InputError(
            f"{path}: says nothing of its grid; put the NIfTI file of the same name "
            "beside it, or a 4x4 array 'affine' into it"
        )
    geometry = nifti.read_geometry(sibling)
    if geometry.shape != shape:
        raise InputError(f"{path}: shape {shape} is not {geometry.shape} of {sibling}")
    return geometry
