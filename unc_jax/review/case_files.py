"""Files of a case: in a folder of references or images, and beside its samples."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from unc_jax.errors import InputError
from unc_jax.review.sample_pattern import ARRAYS

_APART_S = 3600  # nnU-Net writes probabilities and mask of a case within seconds


def all_of_case(folder: Path, case: str, endings: Sequence[str] = ("",)) -> list[Path]:
    """Returns every file of a case in a folder, CASE.nii.gz and CASE.nii."""
    names = [f"{case}{e}{s}" for e in endings for s in (".nii.gz", ".nii")]
    # pathlib raises for a name that is too long
    return [path for n in names if os.path.isfile(path := Path(folder) / n)]


def file_of_case(
    folder: Path, case: str, endings: Sequence[str] = ("",)
) -> Path | None:
    """Returns the file of a case in a folder, e.g. CASE.nii.gz; None without one.

    Raises InputError when CASE.nii lies beside CASE.nii.gz: one is older.
    """
    for ending in endings:
        found = all_of_case(folder, case, (ending,))
        if len(found) > 1:
            raise InputError(f"{found[0]}: {found[1].name} is there too; remove one")
        if found:
            return found[0]
    return None


def mask_beside(array: Path) -> Path | None:
    """Returns the NIfTI file of the same name beside an .npy or .npz; None without."""
    return file_of_case(array.parent, array.name.removesuffix(array.suffix))


def age_warning(samples: Iterable[Path]) -> str:
    """Returns a warning of an array that is an hour older than the mask beside it.

    A tool that was run again without saving probabilities leaves the earlier ones.
    """
    for path in samples:
        mask = mask_beside(path) if path.name.endswith(ARRAYS) else None
        if mask and mask.stat().st_mtime - path.stat().st_mtime > _APART_S:
            return f"{path} is older than {mask.name}: is it of an earlier prediction?"
    return ""
