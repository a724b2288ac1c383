"""All stages end to end on a tiny cohort, and what a person sees of mistakes."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from unc_jax import stages
from unc_jax.errors import InputError
from unc_jax.study.records import COLUMNS


def run_all(config, workdir):
    cohort = stages.prepare(config)
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
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 6
    assert {row["status"] for row in rows} == {"ok"}
    assert all(0 <= float(row["d_pw"]) <= 1 for row in rows)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["test"]["n"] == sum(row["split"] == "test" for row in rows)
    for name in ("figure1.png", "figure2.png"):
        assert (tmp_path / "run" / "figures" / name).exists()

    case = rows[0]["case"]
    scan = nib.load(f"{tiny_config.data.root}/imagesTr/{case}.nii.gz")
    for name in ("mean", "mask", "uncertainty"):
        path = tmp_path / "run" / "predictions" / case / f"{name}.nii.gz"
        written = nib.load(path)
        assert written.shape == scan.shape
        np.testing.assert_array_equal(written.affine, scan.affine)

    tiny_config.train.batch = 1  # a changed config never goes on from the old state
    with pytest.raises(InputError, match=r"train\.batch was 2, is 1"):
        stages.train(tiny_config, stages.prepare(tiny_config), tmp_path / "run")


def test_tumour_run_reaches_a_table(tiny_config, tmp_path):
    tiny_config.data.target = "tumor"
    tiny_config.data.outside_hu = -50.0
    tiny_config.data.window_hu = (-30.0, 200.0)
    tiny_config.train.steps = 2
    tiny_config.train.validate_every_steps = 2
    table = run_all(tiny_config, tmp_path / "run")
    assert "run (tumor) | wcc" in table


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
        ("--config.train.batsh=2", "batsh"),
        ("--config=configs/nope.py", "nope"),
        ("--config.loss.name=mse", "choose from dice, wcc"),
        ("stray", "stray"),
    ],
)
def test_mistakes_are_one_line(start_main, flag, word):
    assert word in failed(start_main(flag))


def test_bad_case_stops_before_training_unless_skipped(tiny_config, tmp_path):
    root = tmp_path / "Task"
    root.mkdir()
    for name in ("imagesTr", "labelsTr"):
        (root / name).mkdir()
        for path in sorted((stages.data_root(tiny_config) / name).glob("*.nii.gz")):
            (root / name / path.name).write_bytes(path.read_bytes())
    text = (stages.data_root(tiny_config) / "dataset.json").read_text()
    (root / "dataset.json").write_text(text)
    broken = root / "imagesTr" / "liver_2.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-100])
    tiny_config.data.root = str(root)
    with pytest.raises(ValueError, match=r"liver_2\.nii\.gz"):
        stages.prepare(tiny_config)
    tiny_config.data.skip_bad_cases = True
    cohort = stages.prepare(tiny_config)
    assert "liver_2" not in cohort.ids
    assert len(cohort.ids) == 5
