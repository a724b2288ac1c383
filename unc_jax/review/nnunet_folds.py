"""Predictions of the folds of an nnU-Net: which cases the folds were trained on."""

from collections.abc import Sequence
from pathlib import Path

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.study.cases_table import Row, leaked

PATTERN = "fold_{sample}/{case}"
_FILE = "splits_final.json"


def read_training(folder: Path) -> list[set[str]]:
    """Reads the training cases of each fold from FOLDER/splits_final.json.

    [] without the file. Raises InputError, naming it, when it is not nnU-Net's.
    """
    path = folder / _FILE
    if not path.exists():
        return []
    try:
        return [set(map(str, split["train"])) for split in files.read_json(path)]
    except (InputError, KeyError, TypeError):
        raise InputError(
            f'{path}: not a list of {{"train": [cases], "val": [cases]}}; copy it again'
        ) from None


def mark_leaked(row: Row, paths: Sequence[Path], training: Sequence[set[str]]) -> Row:
    """Returns the row, marked as leaked if a fold was trained on its case.

    paths: files FOLDER/fold_K/CASE of its samples. fold_all was trained on every case.
    """
    seen = []
    for path in paths:
        fold = path.parent.name.removeprefix("fold_")
        known = training[int(fold) : int(fold) + 1] if fold.isdecimal() else training
        if any(row["case"] in cases for cases in known):
            seen.append(fold)
    if not seen:
        return row
    words = f"{len(seen)} of {len(paths)} folds were trained on it: {', '.join(seen)}"
    return leaked(row, f"{words}; they agree too well")
