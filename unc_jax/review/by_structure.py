"""Quality, failures and statistics of each structure separately.

The Dice of a gallbladder is not comparable to that of a liver: every structure has its
own quality map and bounds, from known cases of that structure.
"""

import hashlib
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unc_jax.data import files
from unc_jax.data.label_names import is_tumour
from unc_jax.errors import InputError
from unc_jax.review import component_rows, known_cases, quality
from unc_jax.review.quality import Quality
from unc_jax.review.structures import NUMBERED
from unc_jax.study import appraisal, cases_table, charts, figures
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.cases_table import LEAKED, Row
from unc_jax.uncertainty.measures import PAPER_MEASURES

FAILURE_DICE = 0.8  # below it a segmentation counts as failed, if nobody says when
_LONGEST = 100  # characters of a name in a file's
_FEWEST = 3  # cases that can be ranked


class Summary(NamedTuple):
    """Summary of a structure over all its cases, with or without references."""

    structure: str
    cases: int
    flagged: int
    dice: float | None  # mean
    scored: int  # cases with a Dice
    failures: int  # of those, below the target
    hd95_mm: float | None  # median
    lesions: int  # components of the references
    found: int  # of those
    false_positives: float | None  # of the masks, mean over cases


def group(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Groups rows by structure, in the order of the rows.

    With several structures, rows without one are left out: those of failed cases.
    """
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row["structure"]), []).append(row)
    if len(found) > 1:
        found.pop("", None)
    return found


def picture_name(case: str, structure: str) -> str:
    """Returns the path of a picture, relative to the folder of pictures."""
    return f"{case}/{_quoted(structure)}.png" if structure else f"{case}.png"


def unseen(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows of cases on which no network of their samples was trained."""
    return [row for row in rows if LEAKED not in cases_table.unlike(row)]


def fit(known: Sequence[Row], rows: Sequence[Row]) -> dict[str, Quality]:
    """Fits the quality map of each structure to its known cases.

    Only measures that are comparable between `known` and `rows` are used, and known
    cases with as many samples as most rows have; all, if `rows` is empty. A structure
    with too few known cases has no map. Names are those of `named_as`. Raises
    InputError when no structure has enough known cases.
    """
    ours, theirs = group(rows), named_as(rows, known)
    models, errors, left_out = {}, [], set()
    for structure, own in theirs.items():
        if rows and structure not in ours:
            continue
        new = ours.get(structure, [])
        alike = known_cases.of_usual_count(own, new)
        if len(alike) < len(own):
            words = f"{len(own) - len(alike)} of {len(own)} known cases are left out: "
            words += "they have another number of samples than most new ones"
            left_out.add(f"{structure}: {words}" if structure else words)
        own, unfit = alike, known_cases.unfit_measures(alike, new)
        left_out |= {f"{name} is left out: {why}" for name, why in unfit.items()}
        measures = [name for name in PAPER_MEASURES if name not in unfit]
        try:
            models[structure] = quality.fit(own, measures=measures)
        except InputError as error:
            errors.append(f"{structure}: {error}" if structure else str(error))
    if rows:
        print(
            "".join(f"{line}\n" for line in sorted(left_out)), end="", file=sys.stderr
        )
    if not models:
        said = errors or [f"known are only {', '.join(map(str, theirs))}"]
        raise InputError(said[0])
    return models


def named_as(rows: Sequence[Row], known: Sequence[Row]) -> dict[str, list[Row]]:
    """Groups the known cases by structure, under the names in `rows`.

    If both sides have a single structure, and one of the two has neither name nor
    number, or one a name and the other a number, they are taken as the same.
    """
    ours, theirs = group(rows), group(known)
    if len(ours) == len(theirs) == 1:
        kinds = {_kind(structure) for structure in (*ours, *theirs)}
        if "" in kinds or len(kinds) == 2:
            return dict(zip(ours, theirs.values(), strict=True))
    return theirs


def _kind(structure: str) -> str:
    """Returns "number" or "name", whichever a structure has; "" for neither."""
    numbered = structure.startswith(NUMBERED)
    return structure and ("number" if numbered else "name")


def with_estimate(row: Row, models: dict[str, Quality], level: float) -> Row:
    """Returns the row with predicted Dice and lower bound at its structure's level."""
    model = models.get(str(row["structure"]))
    return quality.with_estimate(row, model, quality.supported_level(model, level))


def bound_words(models: dict[str, Quality], level: float) -> list[str]:
    """Returns sentences on the bounds, one for all structures that share it."""
    said: dict[str, list[str]] = {}
    for structure, model in models.items():
        said.setdefault(quality.bound_words(model, level), []).append(structure)
    return [
        f"{', '.join(names)}: {words}" if any(names) else words
        for words, names in said.items()
    ]


def summarise(rows: Sequence[Row], target: float) -> list[Summary]:
    """Returns a summary of each structure, in the order of their names.

    target: a Dice below it is a failure. Numbers from references are over the `unseen`
    cases.
    """
    found = []
    for structure, own in sorted(group(rows).items()):
        names = ("dice", "hd95_mm", "false_positives")
        fair = unseen(own)
        columns = (cases_table.column(fair, name) for name in names)
        dice, hd95, false = (values[~np.isnan(values)] for values in columns)
        lesions, share = (
            np.nan_to_num(cases_table.column(fair, name))
            for name in ("lesions", "lesion_sensitivity")
        )
        found.append(
            Summary(
                structure,
                cases=len(own),
                flagged=sum(row["flag"] == "yes" for row in own),
                dice=float(dice.mean()) if len(dice) else None,
                scored=len(dice),
                failures=int((dice < target).sum()),
                hd95_mm=float(np.median(hd95)) if len(hd95) else None,
                lesions=int(lesions.sum()),
                found=round(float(lesions @ share)),
                false_positives=float(false.mean()) if len(false) else None,
            )
        )
    return found


def presence_notes(components: Sequence[Row]) -> list[str]:
    """Returns sentences on how well presence in the samples identifies true lesions.

    components: rows of components.csv; with several structures only tumours are used.
    """
    groups, notes = group(components), []
    for structure, own in groups.items():
        words = component_rows.presence_words(own)
        if words and (len(groups) == 1 or is_tumour(structure)):
            notes.append(f"{structure}: {words}" if structure else words)
    return notes


def write_study(rows: Sequence[Row], folder: Path) -> None:
    """Writes the statistics of a study whose test cases are the `unseen` cases.

    All others are its training cases. With several structures each one is written to a
    folder of its name, if it has enough cases for a rank correlation.
    """
    groups = group(rows)
    for structure, own in groups.items():
        scored = sum(row["dice"] is not None for row in unseen(own))
        if len(groups) > 1 and scored < _FEWEST:
            continue
        studied = [
            cases_table.new_row(
                EVALUATION_COLUMNS,
                **{name: row.get(name) for name in EVALUATION_COLUMNS},
            )
            | {"split": "train" if LEAKED in cases_table.unlike(row) else "test"}
            for row in own
        ]
        place = folder / _quoted(structure) if len(groups) > 1 else folder
        cases_table.write_rows(place / "cases.csv", studied, EVALUATION_COLUMNS)
        files.write_json(place / "summary.json", appraisal.summarise(studied))
        figures.save(charts.figure2({"": studied}), place / "figure2.png")


def _quoted(name: str) -> str:
    """Returns a safe file name: "left/right" becomes left%2Fright.

    It cannot leave its folder; a name that is too long is cut and ends with a digest.
    """
    kept = urllib.parse.quote(name, safe=" ").replace(".", "%2E")
    if len(kept) <= _LONGEST:
        return kept
    return f"{kept[:_LONGEST]}_{hashlib.sha256(name.encode()).hexdigest()[:8]}"
