"""The run folder that comes with the repository, and the format of run folders."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import unc_jax
from unc_jax.config import FORMAT
from unc_jax.errors import InputError
from unc_jax.segmentation.resume import check_resumable
from unc_jax.study import run_folder
from unc_jax.uncertainty.measures import PAPER_MEASURES

SHIPPED = Path(__file__).parents[1] / "results" / "hippocampus" / "run"


@pytest.fixture
def run(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "run")


def set_format(run, value):
    path = run / "config.json"
    fields = json.loads(path.read_text())
    fields.pop("format", None)
    if value is not None:
        fields["format"] = value
    path.write_text(json.dumps(fields))


def test_it_is_small_and_says_whose_data_it_is():
    files = [path for path in SHIPPED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1.5e6
    words = (SHIPPED / "README.md").read_text(encoding="utf-8")
    assert "CC-BY-SA 4.0" in words
    assert "Medical Segmentation\nDecathlon" in words


def test_it_loads_with_quality_and_ranges():
    segmenter = unc_jax.load_run(SHIPPED).segmenter
    assert segmenter.predictor.steps == (600,)
    assert len(segmenter.quality.residuals) == 20
    assert segmenter.novelty is not None
    assert set(PAPER_MEASURES) < set(segmenter.preparation.ranges)


def test_maps_of_another_precision_are_not_taken_for_its_own(monkeypatch):
    """Maps of a GPU, in bfloat16, would stand beside those of a CPU."""
    here = unc_jax.load_run(SHIPPED).segmenter.fingerprint
    assert unc_jax.load_run(SHIPPED).segmenter.fingerprint == here
    device = jax.devices()[0]

    class Tpu:
        platform = "tpu"

        def __getattr__(self, name):
            return getattr(device, name)

    monkeypatch.setattr(jax, "devices", lambda *kind: [Tpu()])
    assert unc_jax.load_run(SHIPPED).segmenter.fingerprint != here


@pytest.mark.slow
def test_it_segments():
    loaded = unc_jax.load_run(SHIPPED)
    distance = np.linalg.norm(
        (np.indices((36, 50, 35)).T - (18, 25, 17)) / (5, 14, 6), axis=-1
    ).T
    noise = np.random.default_rng(0).normal(0, 20, distance.shape)
    found = loaded.segment(np.where(distance < 1, 500, 300) + noise, np.eye(4))
    assert found.mask.shape == found.uncertainty.shape == (36, 50, 35)
    assert all(np.isfinite(value) for value in found.measures.values())
    assert 0.5 < found.predicted_dice < 1
    assert found.flags  # it is no hippocampus


def test_its_rows_were_made_with_its_weights():
    evaluation = json.loads((SHIPPED / "evaluation.json").read_text())
    meta = SHIPPED / "checkpoints" / "step_00000600" / "meta" / "metadata"
    assert evaluation["checkpoints"] == [json.loads(meta.read_text())["sha256"]]
    features = json.loads((SHIPPED / "features.json").read_text())
    assert features["made_with"]["checkpoints"] == evaluation["checkpoints"]


def test_folders_of_this_and_of_older_formats_open(run):
    assert json.loads((run / "config.json").read_text())["format"] == FORMAT
    of_now = run_folder.open_run(run)
    set_format(run, None)
    older = run_folder.open_run(run)
    assert older == of_now
    assert "format" not in older.config
    check_resumable(run_folder.read_config(run), None, run)


@pytest.mark.parametrize("value", [FORMAT + 1, "2", [1]])
def test_a_newer_format_is_refused_in_one_line(run, value):
    set_format(run, value)
    for reader in (
        lambda: run_folder.open_run(run),
        lambda: run_folder.read_config(run),
        lambda: unc_jax.load_run(run),
    ):
        with pytest.raises(InputError, match="newer than this version") as raised:
            reader()
        assert "\n" not in str(raised.value)
        assert "config.json" in str(raised.value)


def test_a_training_of_a_newer_format_is_not_gone_on_with(run):
    config = run_folder.read_config(run)
    path = run / "checkpoints" / "step_00000600" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    meta["config"]["format"] = FORMAT + 1
    path.write_text(json.dumps(meta))
    with pytest.raises(InputError, match="newer than this version"):
        check_resumable(config, None, run)
