"""Checks of a case's files: every problem is found, none ends the search."""

import functools
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple, TypeVar

import numpy as np

from unc_jax.data import copies, nifti
from unc_jax.data.geometry import Geometry, header_notes, voxels_apart
from unc_jax.data.nifti import ENDINGS, files_of
from unc_jax.errors import InputError, counted

# Distances of label and image, voxels: below the first they are float noise of two
# writers, above the second the label lies on its neighbours.
_AFFINE_NOISE = 1e-3
AFFINE_LIMIT = 0.5
_OBLIQUE_DEGREES = 5.0  # more than scanners tilt a patient's axes
_CT_GRID = (
    400  # a CT of 400 voxels at 1 mm would cut the patient: its usual grid is 512
)
_Finding = tuple[str, str]
T = TypeVar("T")


class Problem(NamedTuple):
    """A problem of a case; severity: "error" (it cannot be used) or "warning"."""

    case: str
    severity: str
    message: str


class Checked(NamedTuple):
    """Problems of a case, and the digest of its scan (`copies.digest`).

    The digest is "" where the scan cannot be read.
    """

    problems: list[Problem]
    digest: str


def inside(root: Path, entry: Any) -> Path:
    """Returns the path of an entry; raises InputError unless it is a scan in `root`."""
    if isinstance(entry, list):
        raise InputError(f"lists {counted(len(entry), 'image')}; a case has one")
    if not isinstance(entry, str) or not entry.isprintable():
        raise InputError(f"{entry!a} is not a file path")
    if not entry.endswith(ENDINGS):
        raise InputError(f"{entry} is not one of {', '.join(ENDINGS)}")
    for path in (PurePosixPath(entry), PureWindowsPath(entry)):
        if path.is_absolute() or path.drive or ".." in path.parts:
            raise InputError(f"{entry} points outside {root}; use paths inside it")
    try:
        files = [path.resolve() for path in files_of(root / entry)]
        # Of a loop of links Python 3.13 returns one of them, older ones raise.
        loop = any(path.is_symlink() for path in files)
        inside = not loop and all(path.is_relative_to(root.resolve()) for path in files)
    except OSError as error:
        raise InputError(f"{entry}: {error.strerror}") from None
    except RuntimeError:
        inside = False
    if not inside:
        raise InputError(f"{entry} links to a place outside {root}; copy the file in")
    return root / entry


def check_case(
    case: str,
    image: Path,
    label: Path | None,
    labels: Collection[int],
    ignored: Collection[int],
) -> Checked:
    """Returns every problem of one case, naming the file, and its scan's digest.

    Errors: a file that cannot be read to its end, image and label of different shape
    or more than half a voxel apart, NaN or Inf voxels, label values outside `labels`.
    Warnings: image and label 1e-3 to half a voxel apart, missing or placeholder
    geometry, grids more than 5 degrees oblique, a label without foreground, voxels with
    a value in `ignored`, which nobody labelled and which are background here. Grids are
    compared in RAS+ order, whatever their storage order. Memory: one volume, as stored,
    at a time.
    """
    found: list[_Finding] = []
    digest = ""
    placed = _attempt(nifti.read_geometry, image, "header", found)
    if placed:
        found += _geometry_findings(image, placed)
        findings, digest = _attempt(_check_image, image, "voxels", found) or ([], "")
        found += findings
    if label is not None:
        marked = _attempt(nifti.read_geometry, label, "header", found)
        if marked and placed:
            found += _mismatch(image, placed, label, marked)
        if marked:
            check = functools.partial(_label_findings, labels=labels, ignored=ignored)
            found += _attempt(check, label, "voxels", found) or ()
    problems = [Problem(case, severity, message) for severity, message in found]
    return Checked(problems, digest)


def copy_problems(digests: Mapping[str, str]) -> Iterator[Problem]:
    """Yields a warning for each case whose scan equals that of an earlier case.

    digests: as in `copies.find_copies`.
    """
    for case, first in copies.find_copies(digests).items():
        yield Problem(
            case,
            "warning",
            f"its scan has the voxels of {first}: the Dice of one is not that of a new "
            "case if the other trains the network; leave one out, or name a "
            "data.split_file that keeps both in one part",
        )


def _attempt(
    function: Callable[[Path], T], path: Path, of: str, found: list[_Finding]
) -> T | None:
    """Returns function(path); an exception is added to `found` instead."""
    try:
        return function(path)
    except InputError as error:
        found.append(("error", str(error)))
    # A file that breaks the reader in an unforeseen way is a problem of its case and
    # must not end the verification.
    except Exception as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        found.append(("error", f"{path}: {of} unreadable ({cause})"))
    return None


def _geometry_findings(path: Path, geometry: Geometry) -> Iterator[_Finding]:
    for note in header_notes(geometry):
        yield "warning", f"{path}: {note}"
    linear = geometry.affine[:3, :3]
    lengths = np.linalg.norm(linear, axis=0)
    on_axes = np.isclose(np.abs(linear), np.abs(np.rint(linear)), atol=1e-6).all()
    wide = sum(size >= _CT_GRID for size in geometry.shape) >= 2
    if on_axes and np.allclose(lengths, 1, atol=1e-6) and wide:
        message = f"spacing 1 x 1 x 1 mm on a grid of {_size(geometry.shape)}"
        yield "warning", f"{path}: {message} is likely a placeholder"
    cosines = np.abs(linear / lengths).max(axis=0).clip(0, 1)
    degrees = float(np.degrees(np.arccos(cosines)).max())
    if degrees > _OBLIQUE_DEGREES:
        message = f"oblique by {degrees:.1f} degrees; reordered to RAS+, not rotated"
        yield "warning", f"{path}: {message}"


def _mismatch(
    image: Path, placed: Geometry, label: Path, marked: Geometry
) -> Iterator[_Finding]:
    shapes = placed.canonical_shape, marked.canonical_shape
    if shapes[0] != shapes[1]:
        sizes = f"{_size(shapes[1])} voxels, the image {image} {_size(shapes[0])}"
        yield "error", f"{label}: the label has {sizes} (in RAS+ order)"
        return
    apart = voxels_apart(placed, marked)
    if apart > _AFFINE_NOISE:
        severity = "error" if apart > AFFINE_LIMIT else "warning"
        yield severity, f"{label}: lies {apart:.3g} voxels off its image {image}"


def _check_image(path: Path) -> tuple[list[_Finding], str]:
    array = nifti.read(path).array
    floats = array.dtype.kind == "f"
    broken = sum(int((~np.isfinite(p)).sum()) for p in _planes(array)) if floats else 0
    message = f"{path}: {broken} of {array.size} voxels are NaN or Inf"
    return ([("error", message)] if broken else []), copies.digest(array)


def _label_findings(
    path: Path, labels: Collection[int], ignored: Collection[int]
) -> list[_Finding]:
    array = nifti.read(path, labels=True).array
    counts = np.zeros(256, np.int64)
    for plane in _planes(array):
        counts += np.bincount(plane.ravel(), minlength=256)
    values = [int(value) for value in np.flatnonzero(counts)]
    found = []
    if others := [f"{v} ({counts[v]} voxels)" for v in values if v and v not in labels]:
        allowed = ", ".join(str(value) for value in sorted(labels))
        message = f"{path}: label {', '.join(others)}; allowed are {allowed}"
        found.append(("error", message))
    if unlabelled := [v for v in values if v in ignored]:
        count = int(counts[unlabelled].sum())
        message = f"{path}: {counted(count, 'voxel')} to be ignored (label "
        message += f"{unlabelled[0]}) count as background, in training and in Dice"
        found.append(("warning", message))
    if values == [0]:
        found.append(("warning", f"{path}: the label has no foreground"))
    return found


def _planes(array: np.ndarray) -> np.ndarray:
    """Returns the array with its slowest axis first, so that planes are compact."""
    return np.moveaxis(array, int(np.argmax(np.abs(array.strides))), 0)


def _size(shape: tuple[int, int, int]) -> str:
    return " x ".join(str(size) for size in shape)
