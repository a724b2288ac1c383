"""Checks that runs can be compared: the same cases, splits and references."""

from collections.abc import Sequence

from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.cases_table import Row
from unc_jax.study.run_folder import RunFolder
from unc_jax.uncertainty.measures import PAPER_MEASURES

# Largest relative difference of a reference volume that is taken as rounding.
_SAME_VOLUME = 1e-6
# The same between two values of data.shape. Resampling 55 livers to 64x64x48 and
# 96x96x64 changes their volumes by 2 % at most; tumours of few voxels change more.
_SAME_SCAN = 0.25


def check_comparable(runs: Sequence[RunFolder]) -> None:
    """Raises InputError unless all runs have the same cases, splits and references.

    Runs of different data.shape may be compared: volumes of a reference may differ by a
    quarter then, and cohorts, which include the shape, may differ.
    """
    for run in runs[1:]:
        check_references(runs[0], run)
        _check_splits(runs[0], run)


def check_references(first: RunFolder, other: RunFolder) -> None:
    """Raises InputError unless both runs have the same cases and references."""
    both = f"{first.path} and {other.path} cannot be compared"
    one, two = _by_case(first), _by_case(other)
    rounding = _SAME_VOLUME if first.shape == other.shape else _SAME_SCAN
    if set(one) != set(two):
        case = min(set(one) ^ set(two))
        raise InputError(
            f"{both}: {len(one)} and {len(two)} cases, {case} in one only (another "
            "cohort, or an evaluation that is not finished)"
        )
    for case, row in one.items():
        here, there = row["reference_ml"], two[case]["reference_ml"]
        if here is None or there is None:
            continue
        here, there = float(here), float(there)
        if abs(here - there) > rounding * max(here, there):
            raise InputError(
                f"{both}: the reference of {case} has {here:.6g} ml in one and "
                f"{there:.6g} ml in the other (other data)"
            )


def _check_splits(first: RunFolder, other: RunFolder) -> None:
    two = _by_case(other)
    for case, row in _by_case(first).items():
        split = two[case]["split"]
        if row["split"] != split:
            raise InputError(
                f"{first.path} and {other.path} cannot be compared: {case} is a "
                f"{row['split']} case of one and a {split} case of the other; train "
                "both on one split (data.split_file), or all folds of both (data.fold)"
            )
    if first.shape != other.shape:
        return
    for here, there in zip(first.parts, other.parts, strict=False):
        if None not in (here.cohort, there.cohort) and here.cohort != there.cohort:
            raise InputError(
                f"{here.path} and {there.path} cannot be compared: their cohorts have "
                f"the fingerprints {str(here.cohort)[:12]} and "
                f"{str(there.cohort)[:12]} (other images, split or preparation)"
            )


def _by_case(run: RunFolder) -> dict[str, Row]:
    """Returns the row of each case; its test row if folds were joined."""
    return {str(row["case"]): row for row in run.rows}


def check_rows(run: RunFolder) -> None:
    """Raises InputError for an unknown split, or for too few test cases."""
    rows, table = run.rows, run.path / "cases.csv"
    strange = {str(row["split"]) for row in rows} - set(cases_table.SPLITS)
    if strange:
        raise InputError(
            f"{table}: split {min(strange)!r} is none of {cases_table.SPLITS}"
        )
    test = [row for row in rows if row["split"] == "test"]
    scored = [row for row in test if row["dice"] is not None]
    if len(scored) < 3:
        raise InputError(
            f"{table}: {len(scored)} of {len(test)} test cases have a Dice; a rank "
            "correlation needs 3"
        )
    if all(row[name] is None for row in scored for name in PAPER_MEASURES):
        raise InputError(
            f"{table}: {', '.join(PAPER_MEASURES)} are undefined in every test case; "
            "there is nothing to correlate with Dice"
        )
