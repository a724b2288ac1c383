"""Arrays of the samples that another tool made, on their grids, in RAS+ order.

A NIfTI file holds one sample or a stack of them along its 4th axis; an .npy file, and
an .npz file of one array, one (x, y, z) or a stack (n, x, y, z). An array of an .npz
called `probabilities` or `softmax` is one sample: (x, y, z), or (channels, z, y, x) as
nnU-Net writes them. The grid of an array is that of the NIfTI file of the same name
beside it, or of the 4x4 array `affine` (voxel -> RAS mm) of the .npz; without either it
is `Unplaced`. A reader of nnU-Net that reorients images leaves the channels in RAS+
order, but writes the mask in the order of the image.
"""

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from unc_jax.data import files, nifti
from unc_jax.data.geometry import spans_volume, to_canonical, to_scan_order
from unc_jax.data.nifti import Geometry
from unc_jax.errors import InputError
from unc_jax.review.case_files import file_of_case
from unc_jax.review.channels import SOFTMAX_TOLERANCE
from unc_jax.uncertainty.prediction import SPARSE

# Arrays of an .npz with channels, as nnU-Net versions 2 and 1 call them.
_OF_CHANNELS = ("probabilities", "softmax")
# Files of nnU-Net's folders of predictions that name its reader; the first counts.
_READERS = (
    ("plans.json", "image_reader_writer"),
    ("dataset.json", "overwrite_image_reader_writer"),
)
_REORIENTS = "WithReorient"  # ends the name of a reader that reorients to RAS+
_LEAST_SHARE = 0.98  # of a mask's voxels that must be foreground by its classes


class Unplaced(Geometry):
    """An unknown grid: axes are assumed in RAS+ order, voxels 1 mm wide."""


def read_arrays(path: Path) -> Iterator[nifti.Volume]:
    """Reads the samples of a file, one after the other: (x, y, z) in RAS+ order.

    An .npz with channels is one sample, (channels, z, y, x), in the order of its grid.
    Raises InputError that names the file for one that cannot be read, and for classes
    that are not those of the mask beside them.
    """
    if path.suffix not in (".npy", ".npz"):
        yield from nifti.read_volumes(path)
        return
    stack, name, affine = _load(path)
    if stack.ndim not in (3, 4) or not stack.size or stack.dtype.kind not in "biuf":
        raise InputError(
            f"{path}: {stack.dtype} of shape {stack.shape}; needed are numbers (x, y, "
            "z), (n, x, y, z) for n samples, or probabilities (channels, z, y, x)"
        )
    if stack.ndim == 4 and name in _OF_CHANNELS:
        in_ras = affine is None and _is_reoriented(path.parent)
        geometry = _grid_of(path, affine, stack.shape[:0:-1], in_ras=in_ras)
        if in_ras:
            stack = to_scan_order(stack.T, geometry).T
        _check_mask_beside(path, stack, geometry)
        yield nifti.Volume(stack, geometry)
        return
    geometry = _grid_of(path, affine, stack.shape[-3:])
    for one in stack if stack.ndim == 4 else stack[None]:
        # In memory, in the machine's order of bytes.
        array = np.array(one, one.dtype.newbyteorder("="))
        yield nifti.Volume(nifti.to_canonical(array, geometry), geometry)


def _load(path: Path) -> tuple[np.ndarray, str, np.ndarray | None]:
    """Returns the array of an .npy or .npz file, its name and its affine, if present.

    The array of an .npy is memory-mapped.
    """
    try:
        stored = np.load(files.regular(path), mmap_mode="r", allow_pickle=False)
        if isinstance(stored, np.ndarray):
            return stored, "", None
        with stored:
            names = [n for n in stored.files if n != "affine"]
            names = [one for one in names if one in _OF_CHANNELS] or names
            affine = stored["affine"] if "affine" in stored.files else None
            if len(names) < 2:
                return np.asarray(stored[names[0]]), names[0], affine
    except (OSError, ValueError, IndexError, EOFError, MemoryError) as error:
        cause = " ".join(str(error).split()) or "it is empty"
        raise InputError(f"{path}: cannot be read ({cause})") from None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: damaged ({error}); copy it again") from None
    raise InputError(
        f"{path}: has the arrays {', '.join(names[:6])}; keep only that of the "
        "samples, and its affine"
    )


def _is_reoriented(folder: Path) -> bool:
    """Tells whether the network of a folder's predictions reorients its images."""
    for name, field in _READERS:
        if (folder / name).is_file():
            content = files.read_json(folder / name)
            reader = content.get(field) if isinstance(content, dict) else None
            if reader:
                return str(reader).endswith(_REORIENTS)
    return False


def _check_mask_beside(path: Path, stack: np.ndarray, geometry: Geometry) -> None:
    """Raises InputError if classes disagree with the mask that nnU-Net made from them.

    stack: (channels, z, y, x) in the order of the grid. Where another class has the
    largest probability, that of the background is 0.5 or less. Regions are not checked,
    nor classes beside a NIfTI file that is no label map of them.
    """
    beside = file_of_case(path.parent, path.stem)
    sums = np.sum(stack[:, ::SPARSE, ::SPARSE, ::SPARSE], axis=0, dtype=np.float32)
    if beside is None or not (np.abs(sums - 1) <= SOFTMAX_TOLERANCE).all():
        return
    mask = nifti.read(beside).array
    if mask.dtype.kind not in "biu" or not 0 <= mask.min() <= mask.max() < len(stack):
        return
    background = to_canonical(stack[0].T, geometry)[mask > 0]
    share = np.mean(background <= 0.5) if background.size else 1.0
    if share < _LEAST_SHARE:
        raise InputError(
            f"{path}: by its classes only {share:.0%} of the mask {beside.name} are "
            "foreground: one is of another run or was edited, or its nnU-Net reorients "
            "images and its plans.json is missing; predict the case again"
        )


def _grid_of(
    path: Path,
    affine: np.ndarray | None,
    shape: tuple[int, ...],
    *,
    in_ras: bool = False,
) -> Geometry:
    """Returns the grid of an array; in_ras: the order of its `shape`, else the grid's.

    Raises InputError for an affine of no use, or a NIfTI file of another shape.
    """
    x, y, z = shape
    if affine is not None:
        numbers = affine.dtype.kind in "iuf" and affine.shape == (4, 4)
        # Linear algebra takes floats of 32 and 64 bits alone.
        if not numbers or not spans_volume(placed := affine.astype(float)):
            raise InputError(f"{path}: its affine is not an invertible 4x4 matrix")
        return Geometry((x, y, z), placed)
    sibling = file_of_case(path.parent, path.name.removesuffix(path.suffix))
    if sibling is None:
        return Unplaced((x, y, z), np.eye(4))
    geometry = nifti.read_geometry(sibling)
    expected = geometry.canonical_shape if in_ras else geometry.shape
    if expected != shape:
        raise InputError(f"{path}: shape {shape} differs from {expected} of {sibling}")
    return geometry
