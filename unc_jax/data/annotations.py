"""Further annotations of a case by other raters, on the grid of a prepared cohort.

ROOT/raters/CASE_r0.nii.gz, CASE_r1.nii.gz, ... hold label maps like ROOT/labelsTr/CASE,
one per rater. A data set without the folder has none.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unc_jax.data import nifti
from unc_jax.data.preprocess import Box, select
from unc_jax.data.resampling import resample
from unc_jax.data.split import natural_order


def rater_files(root: Path, case: str) -> list[Path]:
    """The case's annotations in order of the raters' numbers; empty without any."""
    found = {str(path): path for path in (root / "raters").glob(f"{case}_r*.nii.gz")}
    return [found[name] for name in natural_order(found)]


def prepare_raters(
    files: Sequence[Path], *, box: Box, shape: Sequence[int], values: Sequence[int]
) -> np.ndarray:
    """Masks of the labels `values`, bool (raters, x, y, z).

    Cropped to `box` (canonical voxels of the scan) and brought to `shape` by nearest
    voxel, as the label of the cohort was. Raises InputError naming an unreadable file.
    """
    maps = (nifti.read(file, labels=True).array for file in files)
    return np.stack([select(resample(one[box], shape, 0), values) for one in maps])
