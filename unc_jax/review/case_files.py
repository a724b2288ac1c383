"""Files of a case in a folder of references, images or masks."""

import os
from collections.abc import Sequence
from pathlib import Path

from unc_jax.errors import InputError


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
