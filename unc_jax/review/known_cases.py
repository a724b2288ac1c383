"""Cases with a known Dice, by which predicted Dice is calibrated (--calibrate)."""

import csv
import statistics
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from unc_jax.config import differences
from unc_jax.data import files
from unc_jax.errors import InputError, counted, printable
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS, REVIEW_COLUMNS
from unc_jax.study.cases_table import SPLITS, Row
from unc_jax.study.partial_tables import WITHOUT_EFFECT
from unc_jax.uncertainty.measures import PAPER_MEASURES

_SHOWN = 5  # cases that a message names
# Fields of evaluate.* that may differ: predict gives all cases the same masks, whatever
# the scope, and the networks are compared by their weights.
_MAY_DIFFER = (
    *WITHOUT_EFFECT,
    *("evaluate.checkpoint", "evaluate.mask_scope", "evaluate.members"),
    "evaluate.save_predictions",
)


def read_known(path: Path, trained_on: Collection[str] = ()) -> list[Row]:
    """Reads the rows with a known Dice from a cases.csv of an evaluation or a review.

    Cases without a bound of their own (an empty mask, one sample, copies of a sample)
    are left out with a message: new cases of that kind get no bound either.
    Training cases, marked in the table or named in `trained_on`, are left out with a
    message, because their Dice is better than that of new cases. Raises InputError when
    no case is left.
    """
    try:
        with cases_table.opened(path) as file:
            header = next(csv.reader(file), [])
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a text file; name a cases.csv") from None
    columns = EVALUATION_COLUMNS if "split" in header else REVIEW_COLUMNS
    rows = cases_table.read_rows(path, columns)
    wrong = {str(row["split"]) for row in rows if "split" in row} - {*SPLITS, ""}
    if wrong:
        raise InputError(
            f"{path}: the split {sorted(wrong)[0]!r} is none of {', '.join(SPLITS)}"
        )
    rows = [row for row in rows if row["dice"] is not None]
    if not rows:
        raise InputError(f"{path}: no case has a Dice; score with --references first")
    seen = [
        str(row["case"])
        for row in rows
        if row.get("split") == "train"
        or cases_table.LEAKED in cases_table.unlike(row)
        or str(row["case"]).strip() in trained_on
    ]
    seen = [*dict.fromkeys(seen)]  # a case has a row for each structure
    kept = [{**row, "split": ""} for row in rows if row["case"] not in seen]
    unfit = [row for row in kept if _is_unfit(row)]
    if unfit:
        words = f"{path}: left out, as such cases get no bound: {len(unfit)} with an "
        words += "empty mask, one sample or copies of a sample"
        print(printable(words), file=sys.stderr)
        kept = [row for row in kept if not _is_unfit(row)]
        if not kept and not seen:
            raise InputError(words)
    if seen:
        shown = ", ".join(seen[:_SHOWN]) + ", ..." * (len(seen) > _SHOWN)
        words = f"{path}: left out, as training cases calibrate nothing: "
        words += f"{counted(len(seen), 'training case')}: {shown}"
        if not kept:
            raise InputError(words)
        print(printable(words), file=sys.stderr)
    return kept


def _is_unfit(row: Row) -> bool:
    copies = cases_table.IDENTICAL in cases_table.unlike(row)
    return copies or not cases_table.is_usable(row)


def check_samples(path: Path, known: Sequence[Row], trained: Sequence[Row]) -> None:
    """Raises InputError if known cases have another number of samples than the run.

    So does a case without a number, as an edited table may have it.
    """
    if lacking := [str(row["case"]) for row in known if not row["n_samples"]]:
        raise InputError(f"{path}: n_samples of case {lacking[0]} is empty; fill it in")
    theirs, ours = (
        {int(n) for row in rows if (n := row["n_samples"])} for rows in (known, trained)
    )
    if not theirs <= ours:
        counts = " and ".join(map(str, sorted(theirs)))
        raise InputError(
            f"{path}: its cases have {counts} samples, the run draws {max(ours)}, and "
            "so their measures differ; calibrate with cases that the run segmented"
        )


def check_origin(
    path: Path,
    checkpoints: Sequence[str] | None,
    fields: Mapping[str, Any],
    *,
    largest: bool,
) -> None:
    """Raises InputError if the masks of a cases.csv were not made as new ones will be.

    That is by other weights, sampled otherwise (another dropout rate or window, say),
    or with all components where only the largest is kept, or the reverse. The
    evaluation.json or run.json beside the table says so; a table without either is not
    checked.

    checkpoints: SHA-256 of the checkpoint of each network; None: not of a run.
    fields: flat config of the run; {}: not of a run.
    """
    if path.name != "cases.csv":
        return
    evaluation, review = path.with_name("evaluation.json"), path.with_name("run.json")
    origin = next((one for one in (evaluation, review) if one.exists()), None)
    if origin is None:
        return
    made_with = files.read_object(origin)
    if checkpoints and made_with.get("checkpoints", checkpoints) != checkpoints:
        raise InputError(
            f"{path}: its cases were segmented by other networks, says {origin.name}; "
            "calibrate with cases that this run segmented"
        )
    if other := differences(*_comparable(made_with, fields)):
        raise InputError(
            f"{path}: its cases were sampled otherwise ({'; '.join(other)}), says "
            f"{origin.name}; calibrate with cases that were sampled as by this run"
        )
    flags = made_with.get("flags", made_with)  # `score` lists them among the others
    theirs = isinstance(flags, dict) and "largest_component" in flags
    if theirs != largest:
        kept = "the largest component" if theirs else "all components"
        raise InputError(
            f"{path}: its masks have {kept}; segment its cases "
            f"{'with' if largest else 'without'} --largest-component"
        )


def _comparable(
    made_with: Mapping[str, Any], fields: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the fields of network and sampling that a record and a run both have."""
    of_evaluation = "settings" in made_with  # else of predict, or of score without any
    stored = made_with.get("settings" if of_evaluation else "config")
    if not isinstance(stored, dict):
        return {}, {}
    names = [
        name
        for name in fields
        if name.startswith(("model.", "evaluate."))
        and name not in _MAY_DIFFER
        and name in stored
    ]
    return {n: stored[n] for n in names}, {n: fields[n] for n in names}


def of_usual_count(known: Sequence[Row], rows: Sequence[Row]) -> list[Row]:
    """Returns the known cases with as many samples as most of `rows` have.

    Measures of other numbers of samples differ. A case without a number is kept; all
    are, if `rows` say nothing.
    """
    counts = Counter(
        int(n) for row in rows if cases_table.is_usable(row) and (n := row["n_samples"])
    )
    usual = max(counts, key=lambda n: (counts[n], n), default=None)
    if usual is None:
        return list(known)
    return [row for row in known if row["n_samples"] in (None, usual)]


def fit_measures(known: Sequence[Row], rows: Sequence[Row]) -> list[str]:
    """Returns the measures that are comparable between `known` and `rows`.

    Prints the reason for each of the others.
    """
    unfit = unfit_measures(known, rows)
    for name, reason in unfit.items():
        print(f"{name} is left out: {reason}", file=sys.stderr)
    return [name for name in PAPER_MEASURES if name not in unfit]


def unfit_measures(known: Sequence[Row], rows: Sequence[Row]) -> dict[str, str]:
    """Returns the measures that are not comparable between both sides, with reasons.

    These are measures that no case on one side has (masks have no U_labelled), and CV
    if the voxel sizes differ: it is in voxels, so that its scale on the grid of a scan
    differs from that on a run's prepared grid.
    """
    unfit = {}
    for name in PAPER_MEASURES:
        for cases, whose in ((known, "with a known Dice"), (rows, "to predict")):
            if cases and all(row[name] is None for row in cases):
                unfit[name] = f"no case {whose} has it"
    if not same_voxels(known, rows):
        unfit["cv"] = "it counts voxels, which are of another size there"
    return unfit


def same_voxels(known: Sequence[Row], rows: Sequence[Row]) -> bool:
    """Tells whether both were measured on voxels of equal size, within a factor of 2.

    Returns True if a size is unknown.
    """
    one, other = _voxel_ml(known), _voxel_ml(rows)
    return one is None or other is None or 0.5 <= one / other <= 2


def _voxel_ml(rows: Sequence[Row]) -> float | None:
    """Returns the median size of a voxel; None when no row has a spread.

    CV is variance / mean of the sample volumes in voxels; sd and volume are in ml.
    """
    sizes = []
    for row in rows:
        cv, sd, volume = (row[name] for name in ("cv", "volume_sd_ml", "volume_ml"))
        if cv and sd and volume:
            sizes.append(float(sd) ** 2 / (float(volume) * float(cv)))
    return statistics.median(sizes) if sizes else None
