"""Joins the folds of one training into one run, whose test cases are all cases."""

import json
from collections.abc import Sequence

from unc_jax.errors import InputError
from unc_jax.study import voxel_agreement
from unc_jax.study.comparable_runs import check_references
from unc_jax.study.run_folder import RunFolder


def join(runs: Sequence[RunFolder]) -> list[RunFolder]:
    """Returns the runs; those that differ only in data.fold are joined into one.

    The joined run has the training and validation rows of all folds, followed by one
    test row per case, from the fold in which it is a test case. Runs with different
    seeds, and ensembles of different seeds, are not joined.
    Raises InputError when a fold is missing or named twice, folds differ in cases or
    references, or two folds share a test case.
    """
    whole, by_training = [], {}
    for run in runs:
        if run.config["data.fold"] < 0:
            whole.append(run)
        else:
            key = json.dumps([run.seeds, run.defining], sort_keys=True)
            by_training.setdefault(key, []).append(run)
    return [*whole, *map(_join, by_training.values())]


def _join(parts: list[RunFolder]) -> RunFolder:
    parts = sorted(parts, key=lambda part: part.config["data.fold"])
    first, folds = parts[0], parts[0].config["data.folds"]
    by_fold: dict[int, RunFolder] = {}
    for part in parts:
        fold = part.config["data.fold"]
        if fold in by_fold:
            raise InputError(
                f"{by_fold[fold].path} and {part.path} are both fold {fold} of one "
                f"config with one seed ({part.seeds_text}); name each run once"
            )
        by_fold[fold] = part
        if not (_tests_alone(first) and _tests_alone(part)):  # these share no case
            check_references(first, part)
    if missing := [str(fold) for fold in range(folds) if fold not in by_fold]:
        raise InputError(
            f"{first.path}: of its {folds} folds (seed {first.seeds_text}) "
            f"{', '.join(missing)} missing; name the runs of all folds"
        )
    tested: dict[str, RunFolder] = {}
    for part in parts:
        for case in (str(row["case"]) for row in part.rows if row["split"] == "test"):
            if case in tested:
                raise InputError(
                    f"{tested[case].path} and {part.path} are folds of one training, "
                    f"but {case} is a test case of both; train all folds on the same "
                    "cases with one data.split_seed"
                )
            tested[case] = part
    rows = [row for part in parts for row in part.rows]
    voxels = [part.voxels for part in parts if part.voxels is not None]
    return RunFolder(
        first.path,
        first.config,
        sorted(rows, key=lambda row: row["split"] == "test"),
        voxels=voxel_agreement.add(voxels) if len(voxels) == folds else None,
        folds=tuple(parts),
    )


def _tests_alone(run: RunFolder) -> bool:
    return all(row["split"] == "test" for row in run.rows)
