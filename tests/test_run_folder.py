"""A run folder says what was run: refused commands and readers leave it as it is."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
from folders import contents

import unc_jax
from unc_jax import preparation, stages
from unc_jax.config import flat_config, from_flat
from unc_jax.data import dataset, nifti
from unc_jax.errors import InputError
from unc_jax.segmentation.checkpoint import folder_of
from unc_jax.study import members, run_folder


@pytest.fixture
def run(tiny_run, tmp_path):
    """A copy of an evaluated run, to be changed."""
    return shutil.copytree(tiny_run, tmp_path / "runs" / "copy")


def check(config, run, fields, *, stage="all", replace=False):
    config.update_from_flattened_dict(fields)
    stages.check_run(
        config,
        preparation.prepare(config),
        run,
        training=stage in ("all", "train"),
        evaluating=stage in ("all", "evaluate"),
        replace=replace,
    )


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_the_same_command_again_is_no_change(tiny_config, tiny_run):
    before = contents(tiny_run)
    for stage in ("train", "evaluate", "all"):
        check(tiny_config, tiny_run, {"evaluate.bootstrap": 200}, stage=stage)
    assert contents(tiny_run) == before


REFUSED = [
    ("train", {"train.learning_rate": 0.5}, "train.learning_rate: 0.01 -> 0.5"),
    ("all", {"loss.name": "dice"}, 'loss.name: "wcc" -> "dice"'),
    ("all", {"model.features": 3}, "model.features: 2 -> 3"),
    ("evaluate", {"model.features": 3}, "model.features: 2 -> 3"),
    ("evaluate", {"model.dropout_rate": 0.5}, "model.dropout_rate: 0.3 -> 0.5"),
    ("train", {"data.shape": (8, 16, 8)}, r"data.shape: \[16, 16, 8\] -> \[8, 16, 8\]"),
    ("train", {"data.split_seed": 5}, "data.split_seed: 0 -> 5"),
    ("train", {"train.steps": 4}, "train.steps: 8 -> 4"),
    ("evaluate", {"data.split_seed": 5}, "data.split_seed: 0 -> 5"),
    ("train", {"train.steps": 12}, "step 8, but training would continue to step 12"),
    ("evaluate", {"evaluate.samples": 3}, "evaluate.samples: 4 -> 3.*--replace-rows"),
    ("all", {"evaluate.samples": 3}, "evaluate.samples: 4 -> 3.*--replace-rows"),
    ("all", {"train.steps": 12}, "step 8, but training would continue to step 12"),
]


@pytest.mark.parametrize(("stage", "fields", "words"), REFUSED)
def test_what_differs_is_named_before_anything_is_touched(
    tiny_config, tiny_run, stage, fields, words
):
    before = contents(tiny_run)
    with pytest.raises(InputError, match=words) as refused:
        check(tiny_config, tiny_run, fields, stage=stage)
    assert "remove" not in str(refused.value)
    assert contents(tiny_run) == before


@pytest.mark.parametrize("fields", [{"evaluate.samples": 3}, {"train.steps": 12}])
def test_rows_may_be_replaced_when_asked(tiny_config, tiny_run, fields):
    check(tiny_config, tiny_run, fields, replace=True)
    check(tiny_config, tiny_run, fields, replace=True, stage="train")


def test_the_command_leaves_a_finished_run_bit_for_bit(start_main, run):
    before = contents(run)
    flags = ("--workdir", str(run), "--config.train.learning_rate=0.5")
    process = start_main(*flags)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    assert "train.learning_rate: 0.01 -> 0.5" in errors
    assert contents(run) == before


def test_replaced_rows_leave_the_config_of_the_weights(tiny_config, run):
    """config.json is of the weights, evaluation.json of the rows; readers obey both."""
    before = (run / "config.json").read_bytes()
    tiny_config.evaluate.samples = 3
    cohort = preparation.prepare(tiny_config)
    stages.evaluate_run(tiny_config, cohort, run, replace=True)
    assert (run / "config.json").read_bytes() == before
    assert json.loads(before)["evaluate.samples"] == 4
    opened = run_folder.open_run(run)
    assert {row["n_samples"] for row in opened.rows} == {3}
    assert opened.config["evaluate.samples"] == 3  # compare and the report
    assert unc_jax.load_run(run).segmenter.predictor.samples == 3  # predict and API


def test_a_network_of_other_fields_is_named(tiny_config, run):
    tiny_config.model.depth = 3
    with pytest.raises(InputError, match=r"another network \(model.depth: 2 -> 3\)"):
        stages.evaluate_run(tiny_config, preparation.prepare(tiny_config), run)


def test_a_network_of_another_fold_is_named(tiny_config, run):
    """As a member of an ensemble it would have seen the test cases."""
    tiny_config.data.fold = 0
    with pytest.raises(InputError, match=r"another network \(data.fold: -1 -> 0\)"):
        stages.evaluate_run(tiny_config, preparation.prepare(tiny_config), run)


def test_rows_of_an_earlier_version_are_made_again(tiny_config, run):
    """Its evaluation.json holds a digest in place of the settings."""
    old = {"fingerprint": "aa", "cohort": preparation.prepare(tiny_config).fingerprint}
    (run / "evaluation.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match="earlier version"):
        check(tiny_config, run, {})
    cohort = preparation.prepare(tiny_config)
    stages.evaluate_run(tiny_config, cohort, run, replace=True)
    check(tiny_config, run, {})


def test_seeds_of_an_earlier_version_are_the_runs(tmp_path):
    stored = {"seed": 3, "data.root": "phantom"}
    config = from_flat(stored, tmp_path)
    assert (config.data.split_seed, config.data.phantom_seed) == (3, 3)


def test_the_seed_changes_the_training_alone(tiny_config, tiny_task, tmp_path):
    first = preparation.prepare(tiny_config)
    tiny_config.seed = 7
    assert preparation.prepare(tiny_config).fingerprint == first.fingerprint
    tiny_config.data.split_seed = 7
    assert preparation.prepare(tiny_config).split != first.split
    config = tiny_config.copy_and_resolve_references()
    config.update_from_flattened_dict(
        {"data.root": "phantom", "data.phantom_cases": 3, "seed": 9}
    )
    config.data.phantom_size = (24, 24, 24)
    assert preparation.data_root(config).name == "phantom_3_seed0_24x24x24"


def test_readers_leave_an_unfinished_checkpoint_alone(tiny_config, run):
    torn = run / "checkpoints" / "step_00000012.orbax-checkpoint-tmp"
    torn.mkdir()
    (torn / "half").write_text("being written")
    before = contents(run)
    unc_jax.load_run(run)
    check(tiny_config, run, {})
    assert contents(run) == before


def test_checkpoints_in_the_folder_come_before_the_place_that_is_named(run, tmp_path):
    foreign = tmp_path / "foreign"
    edit(run / "config.json", **{"train.checkpoints": str(foreign)})
    unc_jax.load_run(run)
    assert not foreign.exists()
    shutil.move(run / "checkpoints", folder_of(run, str(foreign)))
    unc_jax.load_run(run)  # where the config says


def test_other_weights_than_the_rows_are_refused(tiny_config, run):
    edit(run / "evaluation.json", checkpoints=["00" * 32])
    with pytest.raises(InputError, match="not the one that its rows were made with"):
        unc_jax.load_run(run)
    with pytest.raises(InputError, match=r"weights: step 8 \(0000"):
        check(tiny_config, run, {})
    edit(run / "evaluation.json", steps=[5])  # gone
    with pytest.raises(InputError, match="no usable checkpoint"):
        unc_jax.load_run(run)
    edit(run / "evaluation.json", steps="all")
    with pytest.raises(InputError, match=r"evaluation\.json: steps are 'all'"):
        unc_jax.load_run(run)


PIPES = ("config.json", "cases.csv", "evaluation.json", "features.json")


@pytest.mark.parametrize("name", [*PIPES, "preparation.json"])
def test_a_pipe_in_a_run_folder_is_no_file(run, name):
    (run / name).unlink(missing_ok=True)
    os.mkfifo(run / name)
    signal.alarm(60)  # who opens a pipe waits for ever
    try:
        with pytest.raises(InputError, match=f"{name}.*no file"):
            run_folder.open_run(run)
    finally:
        signal.alarm(0)


def test_rows_in_progress_are_no_finished_evaluation(run):
    (run / "cases.csv").rename(run / "cases.part-0.csv")
    with pytest.raises(InputError, match=r"no cases\.csv; evaluate it first"):
        run_folder.open_run(run)


def test_folders_may_lie_in_the_home_folder(tiny_config, tmp_path, monkeypatch):
    """A shell does not expand the ~ in --config.data.prepared=~/prepared."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    tiny_config.data.prepared = "~/prepared"
    found = preparation.prepare(tiny_config)
    assert found.path.parent == tmp_path / "prepared"
    shutil.copy(found.path / "split.json", tmp_path)
    tiny_config.data.split_file = "~/split.json"
    assert preparation.prepare(tiny_config).fingerprint == found.fingerprint
    tiny_config.evaluate.members = ("~/absent",)
    with pytest.raises(InputError, match=f"{tmp_path}/absent holds no trained"):
        members.seeds_of(tiny_config, found.fingerprint)
    tiny_config.data.root, tiny_config.data.phantom_cases = "phantom", 1
    tiny_config.data.phantom_size = (16, 16, 16)
    assert preparation.data_root(tiny_config).parent == tmp_path / "prepared"
    assert not (tmp_path / "~").exists()


def test_a_torn_record_of_a_verification_is_written_again(tiny_config, tmp_path):
    preparation.prepare(tiny_config)
    (record,) = (tmp_path / "prepared" / "verified").glob("*.json")
    whole = record.read_text()
    record.write_text(whole[:1])
    preparation.prepare(tiny_config)
    assert record.read_text() == whole


def test_a_mended_set_is_verified_again(tiny_config, tiny_task, tmp_path):
    root = shutil.copytree(tiny_task, tmp_path / "Task")
    tiny_config.data.root = str(root)
    whole = json.loads((root / "dataset.json").read_text())
    edit(root / "dataset.json", labels={"0": "background", "1": "liver"})
    with pytest.raises(InputError, match="label 2"):
        preparation.prepare(tiny_config)
    (root / "dataset.json").write_text(json.dumps(whole))
    assert len(preparation.prepare(tiny_config).ids) == 6


def test_folders_without_an_index_are_prepared(tiny_config, tiny_task, tmp_path):
    for case in dataset.read_task(tiny_task).training:
        folder = tmp_path / "Cases" / case.id
        (folder / "segmentations").mkdir(parents=True)
        shutil.copy(case.image, folder / "ct.nii.gz")
        labels, geometry = nifti.read(case.label, labels=True)
        mask = folder / "segmentations" / "liver.nii.gz"
        nifti.write(mask, labels > 0, geometry, np.uint8)
    tiny_config.data.root = str(tmp_path / "Cases")
    assert len(preparation.prepare(tiny_config).ids) == 6


def test_the_config_is_stored_by_training(tiny_config, tiny_run):
    stored = json.loads((tiny_run / "config.json").read_text())
    expected = {"format": 1, **flat_config(tiny_config)}
    assert {**stored, "data.prepared": ""} == {**expected, "data.prepared": ""}


@pytest.mark.parametrize(
    ("field", "shape"),
    [("train.patch_shape", (32, 8, 8)), ("evaluate.window_shape", (16, 16, 16))],
)
def test_a_patch_larger_than_the_prepared_volumes_is_named(tiny_config, field, shape):
    """An automatic shape is known only after preparation."""
    group, name = field.split(".")
    tiny_config[group][name] = shape
    with pytest.raises(InputError, match=f"{field} .* larger than the prepared"):
        stages._check_shapes(tiny_config, (16, 16, 8))
