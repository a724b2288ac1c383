"""Whole runs on real scans: `XLA_FLAGS= bash launch/test.sh -m "real and slow"`.

Minutes each. XLA_FLAGS: here programs are worth optimising, unlike in other tests.
"""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from configs import liver_large_wcc
from unc_jax.data import dataset, prepare_case
from unc_jax.data.preprocess import zscore
from unc_jax.segmentation.models import build_model
from unc_jax.segmentation.train import create_state, variables_of
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.uncertainty.sampling import build_monte_carlo

pytestmark = [pytest.mark.real, pytest.mark.slow]
_ROOT = Path(__file__).parents[1]


def _run(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_hippocampus_reaches_its_dice(real_data, tmp_path):
    _run(
        *("-m", "unc_jax.main", "--config", "configs/hippocampus.py:whole_dice"),
        *("--workdir", str(tmp_path / "run")),
        f"--config.data.root={real_data / 'Task04_Hippocampus'}",
        f"--config.data.prepared={tmp_path / 'prepared'}",
    )
    test = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]
    assert test["n"] == test["n_defined"] == 84
    assert test["dice"]["mean"] >= 0.88


def test_ten_samples_over_a_whole_scan_at_256(real_data):
    config = liver_large_wcc.get_config()
    config.model.features = 16  # full width takes four times as long
    data = config.data
    fields = prepare_case.Recipe._fields
    recipe = prepare_case.Recipe(**{name: data[name] for name in fields})
    case = dataset.read_task(real_data / "Task03_Liver_sample").training[0]
    part = prepare_case.prepare_case(case, recipe)
    assert part.image.shape == part.label.shape == (256, 256, 256)
    image = part.image.astype(np.float32)
    model = build_model(config)
    monte_carlo = build_monte_carlo(
        model,
        samples=10,
        patch_shape=config.train.patch_shape,
        overlap=0.0,
        mask_scope="volume",
        window_batch=config.evaluate.window_batch,
        chunk=1,
    )
    prediction = monte_carlo(
        variables_of(create_state(config, model)),
        zscore(image, float(image.mean()), float(image.std())),
        jax.random.key(0),
    )
    assert prediction.mean.shape == prediction.uncertainty.shape == image.shape
    assert np.isfinite(prediction.mean).all()
    assert len(prediction.masks) == 10
    assert not prediction.identical


def test_demo_model_finds_livers_in_real_ct(real_data, tmp_path):
    run = _ROOT / "runs" / "demo"
    if not (run / "summary.json").exists():
        pytest.skip("no runs/demo: run launch/demo.sh first")
    scores = []
    for name in ("Task03_Liver_sample", "Liver_3mm"):
        flags = ("--input", str(real_data / name), "--output", str(tmp_path / name))
        _run("-m", "unc_jax.predict", "--run", str(run), *flags)
        rows = cases_table.read_rows(tmp_path / name / "cases.csv", REVIEW_COLUMNS)
        scores += [row["dice"] for row in rows if row["dice"] is not None]
    assert len(scores) >= 2
    assert all(0.6 <= score <= 1 for score in scores), scores
