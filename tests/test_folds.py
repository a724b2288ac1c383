"""Folds of one training joined to one model of all test cases."""

import json

import numpy as np
import pytest
from test_compare import FAST, command, grouped, markdown_of, write_run
from test_split import split_of

from unc_jax.errors import InputError
from unc_jax.study import (
    case_columns,
    cases_table,
    comparison,
    figures,
    voxel_agreement,
)

CASES = [f"mr_{number:02}" for number in range(20)]


def rows_of_fold(fold, seed, split_seed=0):
    """Rows of all cases; what is no test case has numbers that would be noticed."""
    parts = split_of(CASES, split_seed, fold=fold)._asdict()
    place = {case: part for part, own in parts.items() for case in own}

    def rows(made):
        found = []
        for i, case in enumerate(CASES):
            random = np.random.default_rng([i, seed])
            test = place[case] == "test"
            bad = i / 20 + 0.3 * random.normal()
            found.append(
                {
                    **made[0],
                    "case": case,
                    "split": place[case],
                    "dice": 0.95 - 0.02 * i if test else 0.99,
                    "cv": 10 + bad if test else 0.0,
                    "d_pw": 0.6 - 0.1 * bad if test else 0.5,
                    "u_labelled": 0.1 + 0.05 * bad,
                    **{"cv_roy": None, "mutual_information": None, "volume_ml": 9.0},
                    "reference_ml": 10.0 + i,
                    "d_pw_half1": bad,
                    "d_pw_half2": bad + 0.05 * (i % 3),
                }
            )
        return found

    return rows


def write_folds(root, *, seed=0, folds=range(5), split_seed=0, **fields):
    return [
        write_run(
            root / f"seed{seed}_fold{fold}",
            seed=seed,
            rows=rows_of_fold(fold, seed, split_seed),
            **{"data.fold": fold, "data.split_seed": split_seed, **fields},
        )
        for fold in folds
    ]


def as_one_split(rows):
    """The rows of all folds' test cases, as one run would have them."""
    made = {}
    for fold in range(5):
        for row in rows_of_fold(fold, 0)(rows):
            if row["split"] == "test":
                made[row["case"]] = row
    return list(made.values())


def test_folds_are_one_run_of_all_test_cases(tmp_path):
    (model,) = grouped(*write_folds(tmp_path))
    whole = grouped(write_run(tmp_path / "whole", rows=as_one_split))
    found = comparison.compare([model], resamples=FAST)
    one = found["models"][0]
    expected = comparison.compare(whole, resamples=FAST)["models"][0]
    rows = model.runs[0].rows
    assert len(rows) == 5 * 20
    assert {row["split"] for row in rows[:-20]} == {"train", "validation"}
    assert one["n_test"] == 20
    assert one["measures"]["d_pw"]["n"] == [20]
    # Intervals resample the cases, as those of one run of the same rows.
    assert one["measures"] == expected["measures"]
    assert one["dice"]["test"] == expected["dice"]["test"]
    assert one["dice"]["train"]["mean"] == pytest.approx(0.99)
    assert one["seeds"] == [0]
    assert one["folds"] == 5
    assert len(one["runs"]) == 5
    text = markdown_of(found)
    assert "5 folds joined" in text
    assert "| 0 | 20 |" in text


def test_folds_whose_test_cases_alone_were_evaluated_are_joined_too(tmp_path):
    def tests_of(fold):
        return lambda made: [
            row for row in rows_of_fold(fold, 0)(made) if row["split"] == "test"
        ]

    alone = [
        write_run(tmp_path / f"fold{k}", rows=tests_of(k), **{"data.fold": k})
        for k in range(5)
    ]
    found = comparison.compare(grouped(*alone), resamples=FAST)["models"][0]
    every = grouped(*write_folds(tmp_path / "every"))
    expected = comparison.compare(every, resamples=FAST)["models"][0]
    assert found["measures"] == expected["measures"]
    assert found["dice"]["train"]["mean"] is None
    with pytest.raises(InputError, match="cannot be compared"):
        grouped(*write_folds(tmp_path / "other", folds=range(4)), alone[4])


def test_seeds_of_all_folds_stay_seeds(tmp_path):
    folders = [f for seed in (1, 0) for f in write_folds(tmp_path, seed=seed)[::-1]]
    (model,) = grouped(*folders)
    assert [run.seed for run in model.runs] == [0, 1]
    found = comparison.compare([model], resamples=FAST)["models"][0]
    rho = found["measures"]["cv"]["rho"]["by_seed"]
    alone = [
        comparison.compare(grouped(*part), resamples=FAST)["models"][0]
        for part in (folders[5:], folders[:5])
    ]
    assert rho == [one["measures"]["cv"]["rho"]["mean"] for one in alone]
    assert rho[0] != rho[1]
    assert found["n_test"] == 20


def test_two_losses_of_the_same_folds_are_compared(tmp_path):
    first = write_folds(tmp_path / "dice")
    second = write_folds(tmp_path / "wcc", **{"loss.name": "wcc"})
    assert [model.loss for model in grouped(*first, *second)] == ["dice", "wcc"]
    for i, folder in enumerate(first + second):
        fingerprint = {"cohort": f"cohort_{i % 5}"}
        (folder / "evaluation.json").write_text(json.dumps(fingerprint))
    grouped(*first, *second)
    (second[3] / "evaluation.json").write_text('{"cohort": "other"}')
    with pytest.raises(ValueError, match="fingerprints cohort_3 and other"):
        grouped(*first, *second)


def refused(capsys, output, *folders):
    assert command(*folders, "--output", output, "--resamples", "1000") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert not output.exists()
    return error


def test_folds_that_make_no_whole_are_one_line(tmp_path, capsys):
    folds, out = write_folds(tmp_path), tmp_path / "out"
    error = refused(capsys, out, folds[0], folds[2], folds[3])
    assert "of its 5 folds (seed 0) 1, 4 missing" in error
    error = refused(capsys, out, *folds, *write_folds(tmp_path / "again", folds=[3]))
    assert "are both fold 3 of one config with one seed (0)" in error
    other = write_folds(tmp_path / "other", folds=[4], split_seed=1)
    error = refused(capsys, out, *folds[:4], *other)
    assert "is a test case of both" in error
    less = write_run(
        tmp_path / "less",
        rows=lambda made: rows_of_fold(4, 0)(made)[1:],
        **{"data.fold": 4},
    )
    assert "mr_00 in one only" in refused(capsys, out, *folds[:4], less)
    split = write_run(tmp_path / "split", rows=as_one_split, **{"loss.name": "wcc"})
    edited = cases_table.read_rows(split / "cases.csv", case_columns.EVALUATION_COLUMNS)
    edited[0]["split"] = "train"
    columns = case_columns.EVALUATION_COLUMNS
    cases_table.write_rows(split / "cases.csv", edited, columns)
    assert "or all folds of both" in refused(capsys, out, *folds, split)
    config = json.loads((folds[0] / "config.json").read_text())
    (folds[0] / "config.json").write_text(json.dumps({**config, "data.fold": "two"}))
    assert "data.fold is 'two' of data.folds 5" in refused(capsys, out, *folds)


def test_joined_folds_are_kept_and_give_the_same_again(tmp_path):
    folders, output = write_folds(tmp_path, panels=True), tmp_path / "out"
    assert command(*folders, "--output", output, "--resamples", "1000") == 0
    assert (output / "figure1.png").exists()
    first = json.loads((output / "statistics.json").read_text())["models"][0]
    kept = sorted((output / "runs").iterdir())
    assert [one.name for one in kept] == [one.name for one in folders]
    again = tmp_path / "again"
    assert command(*kept, "--output", again, "--resamples", "1000") == 0
    second = json.loads((again / "statistics.json").read_text())["models"][0]
    assert {**second, "runs": 0} == {**first, "runs": 0}


def test_a_slice_is_that_of_the_fold_that_tested_the_case(tmp_path):
    folders = write_folds(tmp_path, panels=True)
    for fold, folder in enumerate(folders):
        for case in CASES:
            if case not in split_of(CASES, 0, fold=fold).test:
                (folder / "panels" / f"{case}.npz").write_text("not to be read")
    drawn = figures.figure1_of_models(grouped(*folders))
    titles = [ax.get_title().replace("\n", "") for ax in drawn.axes[:9:3]]
    assert titles == ["mr_00", "mr_10", "mr_19"]


def test_voxels_of_folds_add_up(tmp_path):
    folders = write_folds(tmp_path)
    label = np.zeros((12, 12, 12), np.uint8)
    label[4:8, 4:8, 4:8] = 1
    sums = []
    for folder in folders:
        p, q = np.random.default_rng(len(sums)).random((2, 12, 12, 12))
        sums.append(voxel_agreement.assess(p, q, label))
        content = {"cases": 1, "tallies": sums[-1], "raters": {}}
        (folder / "voxels.json").write_text(json.dumps(content))
    (model,) = grouped(*folders)
    voxels = model.runs[0].voxels
    assert voxels["cases"] == 5
    count = voxels["tallies"]["mean"]["near"]["count"]
    assert count == np.sum([one["mean"]["near"]["count"] for one in sums], 0).tolist()
    (folders[2] / "voxels.json").write_text('{"cases": 1}')
    with pytest.raises(ValueError, match="not of this form"):
        grouped(*folders)
    (folders[2] / "voxels.json").unlink()
    assert grouped(*folders)[0].runs[0].voxels is None
