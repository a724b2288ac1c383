"""Predictions of the folds of an nnU-Net: which cases the folds were trained on."""

import re
from collections.abc import Sequence
from pathlib import Path

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.study.cases_table import Row, leaked

PATTERN = "fold_{sample}/{case}"
_FILE = "splits_final.json"
_FOLD = re.compile(r"fold[-_ ]?(\d+|all)", re.IGNORECASE)


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

    paths: files of its samples; fold_K in the name of a file, or of its folder, is its
    fold. A sample of fold_all, or without a fold of the split in its name, counts as
    trained on the training cases of every fold.
    """
    seen, named = [], True
    for path in paths:
        fold = _fold_of(path)
        number = int(fold) if fold.isdecimal() else len(training)
        named = named and bool(fold)
        if any(row["case"] in cases for cases in training[number:][:1] or training):
            seen.append(fold)
    if not seen:
        return row
    words = f"{len(seen)} of {len(paths)} folds were trained on it: {', '.join(seen)}"
    if not named:
        words = f"folds were trained on it, says {_FILE}"
    return leaked(row, f"{words}; they agree too well")


def _fold_of(path: Path) -> str:
    """Returns the fold in the name of a file or of its folder; "" without one."""
    names = path.name.partition(".")[0], path.parent.name
    found = filter(None, map(_FOLD.fullmatch, names))
    return next((one[1].lower() for one in found), "")
