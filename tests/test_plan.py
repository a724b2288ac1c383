"""The plan of a run: what it says, what it refuses, and that it leaves no trace."""

import json
import math
import shutil

import jax
import jax.numpy as jnp
import pytest

from unc_jax import plan, preparation
from unc_jax.data.write_cohort import bytes_needed
from unc_jax.errors import InputError
from unc_jax.footprint import footprint


def test_a_plan_says_it_all_and_touches_nothing(start_main, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    process = start_main("--stage", "plan")
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    for word in ("cases:", "devices:", "disk:", "training:", "samples:", "steps of"):
        assert word in output
    assert "6 (" in output
    assert sorted(tmp_path.rglob("*")) == before


def test_reliability_is_that_of_the_last_evaluation(tmp_path):
    (unknown,) = plan._reliability(tmp_path)
    assert "known after evaluation" in unknown
    known = {"value": 0.38, "ci95": [0.1, 0.6], "samples": 10, "ceiling": 0.62}
    known |= {"wanted": 0.8, "samples_needed": 66}
    measures = {"cv": {}, "u_labelled": {}, "d_pw": {"reliability": known}}
    text = json.dumps({"test": {"measures": measures}})
    (tmp_path / "summary.json").write_text(text)
    (line,) = plan._reliability(tmp_path)
    assert "of D_pw is 0.38" in line
    assert line.endswith("take N = 66.")


def test_work_is_counted_without_the_data(tiny_config):
    tiny_config.data.root = "/nowhere/Task03_Liver"
    work = plan.work_of(tiny_config)
    assert (work.cases, work.train_cases) == (131, 63)
    assert "no data at /nowhere/Task03_Liver" in work.known
    tiny_config.data.root = "phantom"
    tiny_config.data.phantom_cases = 9
    assert plan.work_of(tiny_config).cases == 9


def test_a_split_file_that_is_not_there_is_refused_as_by_the_run(tiny_config):
    tiny_config.data.split_file = "/nowhere/split.json"
    with pytest.raises(InputError, match=r"/nowhere/split\.json: .*No such file"):
        plan.work_of(tiny_config)
    tiny_config.data.root = "/nowhere"  # then nothing is known of its cases
    assert plan.work_of(tiny_config).cases == 131


def test_tumours_of_automatic_shape_take_the_papers(tiny_config):
    with tiny_config.unlocked():
        tiny_config.data.shape = "auto"
    assert plan.work_of(tiny_config).volume == (284, 256, 133)


def test_a_plane_that_cannot_be_halved_is_one_padded_window(tiny_config):
    tiny_config.model.depth = 4
    tiny_config.data.shape = (36, 52, 32)
    tiny_config.train.patch_shape = (16, 16, 16)
    work = plan.work_of(tiny_config)
    assert work.window == (40, 56, 16)
    assert work.windows == 3  # of 16 planes, 12 apart


def lines(config, tmp_path):
    return list(plan.plan(config, tmp_path / "run"))


def test_a_full_disk_is_refused_before_anything_is_compiled(
    tiny_config, tmp_path, monkeypatch
):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"0\.00 GB free.*data\.prepared"):
        lines(tiny_config, tmp_path)


def test_the_disk_of_the_plan_is_what_preparation_asks_for(
    tiny_config, tmp_path, monkeypatch
):
    """A disk that the plan takes is one that preparation takes, to the byte."""
    tiny_config.data.prepared = str(tmp_path / "prepared")
    enough = 8 * 6 * 16 * 16 * 8  # bytes a voxel, cases, voxels
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=enough - 1))
    with pytest.raises(InputError, match=r"data\.prepared"):
        lines(tiny_config, tmp_path)
    with pytest.raises(InputError, match="preparing needs"):
        preparation.prepare(tiny_config)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=enough))
    assert len(preparation.prepare(tiny_config).ids) == 6
    work = plan.work_of(tiny_config)
    assert bytes_needed(work.volume, work.cases, work.cases) == enough


@pytest.mark.parametrize(
    ("there", "field"),
    [
        (50_000, "lower train.batch"),
        (2_000_000, "set train.residence=host"),  # 2.4 MB of training set
        (4_000_000, "lower data.shape"),  # ten volumes of 1 MB
    ],
)
def test_what_cannot_fit_names_its_field(
    tiny_config, tmp_path, monkeypatch, there, field
):
    monkeypatch.setattr(plan.devices, "memory_bytes", lambda: there)
    with tiny_config.unlocked():
        tiny_config.data.shape = (64, 64, 64)
    tiny_config.train.residence = "device"
    with pytest.raises(InputError, match=field):
        lines(tiny_config, tmp_path)


def test_members_sample_one_after_the_other(tiny_config):
    work = plan.work_of(tiny_config)
    with tiny_config.unlocked():
        tiny_config.evaluate.members = ("a",) * 10**5
    line = list(plan._sampling(tiny_config, work, 10**12))[-1]
    assert " s a case" not in line


@pytest.mark.parametrize(
    ("source", "members", "told"),
    [
        ("dropout", (), "of 4 samples"),
        ("flips", (), "1 of 8 samples"),
        ("ensemble", ("a", "b", "c"), "1 of 3 samples"),
    ],
)
def test_passes_are_those_of_the_source(tiny_config, tmp_path, source, members, told):
    tiny_config.evaluate.source = source
    with tiny_config.unlocked():
        tiny_config.evaluate.members = members
    found = lines(tiny_config, tmp_path)
    assert any(told in line for line in found)
    assert any(line.startswith("training") for line in found) == (not members)


def test_a_window_as_large_as_the_volume(tiny_config):
    work = plan.work_of(tiny_config)
    (line,) = plan._whole_volume(tiny_config, work, 10**9)
    less = work.windows * math.prod(work.window) / work.voxels
    assert less > 1
    assert f"{less:.2f} times less work" in line
    assert line.endswith(f'"--config.evaluate.window_shape={work.volume}"')
    (line,) = plan._whole_volume(tiny_config, work, 1000)
    assert line.endswith("too much")
    whole = work._replace(windows=1)
    assert not list(plan._whole_volume(tiny_config, whole, 10**9))


def test_a_footprint_by_hand():
    """Two arrays of 4 MB in, one out; the sum before its root may be kept or not."""

    def function(a, b):
        return jnp.sqrt(a + b)

    shape = jax.ShapeDtypeStruct((1000, 1000), jnp.float32)
    found = footprint(function, (shape, shape))
    assert 12e6 <= found.memory <= 16.1e6
    reused = footprint(function, (shape, shape), donate=(0,))
    assert reused.memory <= found.memory - 3.9e6
    assert 0 < found.seconds() < 10
    assert found.compile_s > 0


def test_a_folder_called_phantom_is_no_data_set(tiny_config, tmp_path, monkeypatch):
    (tmp_path / "phantom").mkdir()
    monkeypatch.chdir(tmp_path)
    tiny_config.data.root = "phantom"
    assert plan.work_of(tiny_config).known == "synthetic"
