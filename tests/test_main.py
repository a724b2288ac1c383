"""All stages end to end on a tiny cohort, and what a person sees of mistakes."""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from folders import contents

from unc_jax import main, predict, preparation, stages
from unc_jax.errors import InputError
from unc_jax.review import scans, segment_case
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS, REVIEW_COLUMNS


def run_all(config, workdir):
    cohort = preparation.prepare(config)
    stages.train(config, cohort, workdir)
    return stages.evaluate_run(config, cohort, workdir)


def times(folder):
    kept = ("images.npy", "labels.npy", "cases.json", "cases.csv", "metrics.jsonl")
    files = [path for path in folder.rglob("*") if path.name in kept]
    assert len(files) == 5
    return {str(path): path.stat().st_mtime_ns for path in files}


def test_all_stages_twice(tiny_config, tmp_path):
    tiny_config.evaluate.save_predictions = True
    table = run_all(tiny_config, tmp_path / "run")
    before = times(tmp_path)
    assert run_all(tiny_config, tmp_path / "run") == table
    assert times(tmp_path) == before  # the second run did nothing

    with open(tmp_path / "run" / "cases.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == EVALUATION_COLUMNS
    assert len(rows) == 6
    assert {row["status"] for row in rows} == {"ok"}
    assert all(0 <= float(row["d_pw"]) <= 1 for row in rows)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test"]["n"] == sum(row["split"] == "test" for row in rows)
    for name in ("figure1.png", "figure2.png"):
        assert (tmp_path / "run" / "figures" / name).exists()
    voxels = json.loads((tmp_path / "run" / "voxels.json").read_text())
    assert voxels["cases"] == len(voxels["raters"]) == summary["test"]["n"]
    counted = np.sum(voxels["tallies"]["single"]["everywhere"]["count"])
    assert counted == voxels["cases"] * np.prod(tiny_config.data.shape)

    case = rows[0]["case"]
    scan = nib.load(f"{tiny_config.data.root}/imagesTr/{case}.nii.gz")
    for name in ("mean", "mask", "uncertainty"):
        path = tmp_path / "run" / "predictions" / case / f"{name}.nii.gz"
        written = nib.load(path)
        assert written.shape == scan.shape
        np.testing.assert_array_equal(written.affine, scan.affine)

    folder = tmp_path / "run" / "predictions" / case
    mask, mean = (
        nib.load(folder / f"{n}.nii.gz").get_fdata() for n in ("mask", "mean")
    )
    np.testing.assert_array_equal(mask, mean >= 0.5)
    np.testing.assert_array_equal(mean * 1024, np.round(mean * 1024))

    tiny_config.train.batch = 1  # a changed config never goes on from the old state
    with pytest.raises(InputError, match=r"train\.batch: 2 -> 1"):
        stages.train(tiny_config, preparation.prepare(tiny_config), tmp_path / "run")


def review(run, source, output, *flags, failed=0):
    """Runs the command in this process; rows by case."""
    argv = ["--run", str(run), "--input", str(source), "--output", str(output)]
    with pytest.raises(SystemExit) as done:
        predict.main([*argv, "--review-fraction", "0.5", *flags])
    assert done.value.code == (4 if failed else 0)
    rows = cases_table.read_rows(output / "cases.csv", REVIEW_COLUMNS)
    assert sum(row["status"].startswith("failed") for row in rows) == failed
    return {row["case"]: row for row in rows}


def check_row(row, known, output, task):
    """The same networks saw the same voxels: the numbers are those of the evaluation.

    row, known: of a case in the review and in the evaluation.
    """
    assert row["status"] == "ok"
    for name in ("cv", "d_pw", "u_labelled", "cv_se", "d_pw_se", "u_labelled_se"):
        assert row[name] == pytest.approx(known[name], rel=1e-4), name
    scan = nib.load(task / "imagesTr" / f"{known['case']}.nii.gz")
    for name in ("mask", "mean", "uncertainty"):
        written = nib.load(output / known["case"] / f"{name}.nii.gz")
        assert written.shape == scan.shape
        np.testing.assert_array_equal(written.affine, scan.affine)
    # The Dice and the volumes are those of the mask that was written.
    mask = nib.load(output / known["case"] / "mask.nii.gz")
    label = nib.load(task / "labelsTr" / f"{known['case']}.nii.gz")
    here, there = (np.asarray(one.dataobj) > 0 for one in (mask, label))
    both = 2 * (here & there).sum() / (here.sum() + there.sum())
    assert known["dice_scan"] == pytest.approx(both, abs=1e-4)
    assert row["dice"] == pytest.approx(both)
    assert known["dice_scan"] != known["dice"]
    voxel_ml = abs(np.linalg.det(mask.affine[:3, :3])) / 1000
    assert row["volume_ml"] == pytest.approx(here.sum() * voxel_ml, rel=1e-6)
    scale = row["volume_ml"] / known["volume_ml"]
    for name in ("volume_sd_ml", "volume_low_ml", "volume_high_ml"):
        assert row[name] == pytest.approx(scale * known[name], rel=1e-3), name
    leaked = known["split"] == "train"  # its Dice says nothing of new scans
    assert (row["unlike"] == "leaked") == leaked, row["unlike"]
    assert ("a training case of the run has its name" in row["warnings"]) == leaked
    same = f"has the voxels of {known['case']}, a training case of the run"
    assert (same in row["warnings"]) == leaked


def check_calibration(run, task, table, capsys):
    """A review's table calibrates, its training cases left out by their names."""
    for path, columns in (
        (table, REVIEW_COLUMNS),
        (run / "cases.csv", EVALUATION_COLUMNS),
    ):
        filled = [  # so small a network leaves some measures undefined
            {**row, "u_labelled": row["u_labelled"] or 0.1, "cv": row["cv"] or 1.0}
            for row in cases_table.read_rows(path, columns)
        ]
        cases_table.write_rows(path, filled, columns)
    again = table.parent / "again"
    review(run, task, again, "--calibrate", str(table))
    words = capsys.readouterr().err
    assert "training cases calibrate nothing: 3 training cases" in words
    assert words.count("Lower bounds of Dice hold") == 1
    assert "hold at level 0.75 (0.9 was asked for): 3 calibration cases" in words
    found = cases_table.read_rows(again / "cases.csv", REVIEW_COLUMNS)
    assert all(row["dice"] is not None for row in found)  # of the set's own labels
    for row in found:  # after two updates some volumes are unlike any known one
        unlike = set(cases_table.unlike(row))
        assert (row["dice_lower"] is None) == bool(unlike & {"volume_ml", "leaked"})
    assert sum("leaked" in row["unlike"] for row in found) == 3
    flags = ["--run", str(run), "--input", str(task), "--output", str(again)]
    flags += ["--largest-component", "--calibrate", str(again / "cases.csv")]
    with pytest.raises(SystemExit) as done:
        predict.main(flags)
    assert done.value.code == 2
    assert "its masks have all components" in capsys.readouterr().err
    named = [{**row, "structure": "spleen"} for row in filled]
    cases_table.write_rows(table, named, EVALUATION_COLUMNS)
    flags = ["--run", str(run), "--input", str(task), "--output", str(again)]
    with pytest.raises(SystemExit) as done:
        predict.main([*flags, "--calibrate", str(table)])
    assert done.value.code == 2
    assert "has rows of spleen" in capsys.readouterr().err


def test_a_trained_run_reviews_other_scans(tiny_config, tmp_path, capsys):
    run, output = tmp_path / "run", tmp_path / "out"
    run_all(tiny_config, run)
    shutil.copytree(run, tmp_path / "elsewhere")  # a run is a folder to carry away
    source = tmp_path / "scans"
    shutil.copytree(f"{tiny_config.data.root}/imagesTr", source)
    (source / "torn.nii.gz").write_bytes(b"no scan")
    task = Path(tiny_config.data.root)
    flags = ("--references", str(task / "labelsTr"))
    rows = review(tmp_path / "elsewhere", source, output, *flags, failed=1)

    for known in cases_table.read_rows(run / "cases.csv", EVALUATION_COLUMNS):
        check_row(rows[known["case"]], known, output, task)
    assert "over all cases except 3 on which" in (output / "report.html").read_text()
    assert rows["torn"]["dice"] is None
    assert "NIfTI" in rows["torn"]["status"]
    assert (rows["torn"]["flag"], rows["torn"]["reason"]) == ("yes", "failed")
    assert sum(row["flag"] == "yes" for row in rows.values()) >= 4
    assert "torn" in (output / "report.html").read_text()

    shutil.copy(output / "cases.csv", tmp_path / "known.csv")
    first = next(case for case in rows if case != "torn")
    marks = {path: path.stat().st_mtime_ns for path in output.glob("*/*.nii.gz")}
    (output / first / "mask.nii.gz").unlink()  # as a kill leaves it
    (source / "torn.nii.gz").unlink()
    (source / "notes.txt").write_text("no scan")
    os.mkfifo(source / "pipe.nii")
    assert review(tmp_path / "elsewhere", source, output).keys() == rows.keys() - {
        "torn"
    }
    anew = {p.parent.name for p in marks if p.stat().st_mtime_ns != marks[p]}
    assert anew == {first}
    path = source / f"{first}.nii.gz"
    told = json.loads((output / "run.json").read_text())["sha256"][first]
    assert json.loads((output / "run.json").read_text())["passed_over"] == {
        "neither NIfTI nor DICOM": [str(source / "notes.txt")],
        "no file, but a pipe, device or link": [str(source / "pipe.nii")],
    }
    assert told == hashlib.sha256(path.read_bytes()).hexdigest()

    # A case that fails now keeps nothing that looks like a result.
    path.write_bytes(b"no scan")
    request = segment_case.SegmentRequest(output)
    assert request.segmented(scans.Scan(first, path)) == told  # of what was segmented
    assert (
        "failed"
        in review(tmp_path / "elsewhere", source, output, failed=1)[first]["status"]
    )
    assert not list((output / first).iterdir())
    assert not (output / "pictures" / f"{first}.png").exists()
    assert not (output / "cases.unfinished.csv").exists()
    check_calibration(run, task, tmp_path / "known.csv", capsys)


def test_tumour_run_reaches_a_table(tiny_config, tmp_path):
    tiny_config.data.target = "tumor"
    tiny_config.data.outside_hu = -50.0
    tiny_config.data.window_hu = (-30.0, 200.0)
    tiny_config.train.steps = 2
    tiny_config.train.validate_every_steps = 2
    run = tmp_path / "run"
    assert "run (tumor) | wcc" in run_all(tiny_config, run)

    # Its scans, with the livers of the references, one of them empty.
    task = Path(tiny_config.data.root)
    livers = tmp_path / "livers"
    shutil.copytree(task / "labelsTr", livers)
    case = cases_table.read_rows(run / "cases.csv", EVALUATION_COLUMNS)[0]["case"]
    path = livers / f"{case}.nii.gz"
    label = nib.load(path)
    nib.save(nib.Nifti1Image(np.zeros(label.shape, np.uint8), label.affine), path)
    output = tmp_path / "out"
    flags = ("--liver-masks", str(livers), "--samples-too")
    rows = review(run, task / "imagesTr", output, *flags)
    assert (rows[case]["status"], rows[case]["flag"]) == ("no_liver", "yes")
    assert not nib.load(output / case / "mask.nii.gz").get_fdata().any()
    assert not (output / case / "samples").exists()
    for known in cases_table.read_rows(run / "cases.csv", EVALUATION_COLUMNS)[1:]:
        if rows[known["case"]]["status"] != "ok":
            continue
        samples = sorted((output / known["case"] / "samples").iterdir())
        assert len(samples) == tiny_config.evaluate.samples
        scan = nib.load(task / "imagesTr" / f"{known['case']}.nii.gz")
        assert nib.load(samples[0]).shape == scan.shape
    assert json.loads((output / "run.json").read_text())["sha256"].keys() == rows.keys()

    before = contents(output)
    with pytest.raises(SystemExit) as done:
        predict.main(["--run", str(run), "--input", str(task), "--output", str(output)])
    assert done.value.code == 2  # a tumour is looked for within a liver
    assert contents(output) == before

    shutil.copy(task / "labelsTr" / path.name, path)  # the liver mask is corrected
    assert review(run, task / "imagesTr", output, *flags)[case]["status"] != "no_liver"
    after = contents(output)
    changed = {name.split("/")[0] for name in after if after[name] != before.get(name)}
    assert changed.isdisjoint(rows.keys() - {case})  # the others are not made again


def failed(process):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    lines = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "Traceback" not in errors
    return lines[0]


def test_no_data_says_where_it_comes_from(start_main):
    line = failed(start_main(**{"data.root": "/nowhere"}))
    assert "Medical Segmentation Decathlon" in line
    assert "--config.data.root=phantom" in line


@pytest.mark.parametrize(
    ("flag", "word"),
    [
        ("--config.train.batsh=2", "error: 'batsh' Did you mean"),
        ("--config=configs/demo.py:x", "demo.py:x: this config takes no argument"),
        ("--config.loss.name=mse", "choose from dice, wcc"),
    ],
)
def test_mistakes_are_one_line(start_main, flag, word):
    assert word in failed(start_main(flag))


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--config.loss.name=mse", "name a config by --config configs/NAME.py"),
        ("--config", "--config names no file; the available ones are in configs/"),
        (
            "--config=configs/nope.py",
            "no config file configs/nope.py; the available ones are in configs/",
        ),
    ],
)
def test_a_config_that_is_not_there_is_one_line(monkeypatch, capsys, flag, words):
    monkeypatch.setattr("sys.argv", ["main", flag])
    with pytest.raises(SystemExit) as stopped:
        main._parse(["main", flag])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == f"error: {words}\n"


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def get_config(:\n", "mine.py"),
        ("from configs import base\nget_config = bass.get_config\n", "'bass'"),
    ],
)
def test_a_config_file_that_does_not_run_is_one_line(
    start_main, tmp_path, source, words
):
    path = tmp_path / "mine.py"
    path.write_text(source)
    assert words in failed(start_main(f"--config={path}"))


def test_a_stray_word_is_refused():
    with pytest.raises(InputError, match="stray argument 'word'"):
        main.run(["main", "word"])


def test_a_field_may_stand_before_its_config():
    flag = "--config.loss.name=mse"
    assert main._config_first(["main", flag, "--config", "configs/demo.py"]) == [
        "main",
        "--config=configs/demo.py",
        flag,
    ]


def test_bad_case_stops_before_training_unless_skipped(tiny_config, tmp_path):
    root = tmp_path / "Task"
    root.mkdir()
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir()
        for path in sorted(
            (preparation.data_root(tiny_config) / name).glob("*.nii.gz")
        ):
            (root / name / path.name).write_bytes(path.read_bytes())
    text = (preparation.data_root(tiny_config) / "dataset.json").read_text()
    (root / "dataset.json").write_text(text)
    broken = root / "imagesTr" / "liver_2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-100])
    tiny_config.data.root = str(root)
    with pytest.raises(ValueError, match=r"liver_2\.nii\.gz"):
        preparation.prepare(tiny_config)
    tiny_config.data.skip_bad_cases = True
    cohort = preparation.prepare(tiny_config)
    assert "liver_2" not in cohort.ids
    assert len(cohort.ids) == 5
