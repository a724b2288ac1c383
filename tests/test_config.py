import importlib
import math
from pathlib import Path

import pytest
from test_split import split_of

from configs import base, hippocampus, liver_mr
from unc_jax.check_config import check_config
from unc_jax.config import flat_config, from_flat
from unc_jax.errors import InputError
from unc_jax.review.quality import greatest_level

FILES = sorted(path.stem for path in Path("configs").glob("[a-z]*.py"))
PAPER = {
    f"liver_{size}_{loss}" for size in ("large", "small") for loss in ("wcc", "dice")
}
PAPER |= {"tumor_large_wcc", "tumor_large_dice"}


def load(name):
    return importlib.import_module(f"configs.{name}").get_config()


def test_the_papers_six_models_are_there():
    assert set(FILES) >= PAPER


@pytest.mark.parametrize("name", FILES)
def test_every_config_passes_the_check(name):
    check_config(load(name))


@pytest.mark.parametrize("name", sorted(PAPER))
def test_paper_configs_are_what_their_names_say(name):
    config = load(name)
    target, size, loss = name.split("_")
    assert config.data.target == target
    assert config.loss.name == loss
    patch = {"large": (128, 128, 16), "small": (64, 64, 16)}[size]
    assert config.train.patch_shape == patch
    assert config.evaluate.samples == 10
    shape = {"liver": (256, 256, 256), "tumor": (284, 256, 133)}[target]
    assert config.data.shape == shape


@pytest.mark.parametrize(
    "variant", ["whole_wcc", "whole_dice", "part_wcc", "part_dice"]
)
def test_hippocampus_variants_pass_the_check(variant):
    config = hippocampus.get_config(variant)
    check_config(config)
    assert config.loss.name == variant.split("_")[1]


@pytest.mark.parametrize("target", ["liver", "spleen", "kidneys"])
def test_liver_mr_variants_pass_the_check(target):
    config = liver_mr.get_config(f"{target}_dice")
    check_config(config)
    assert config.loss.name == "dice"
    assert bool(config.data.liver_labels) == (target != "liver")
    with pytest.raises(ValueError, match="kidneys"):
        liver_mr.get_config(f"{target}_mse")


def test_a_fold_of_a_split_file_is_refused():
    config = base.get_config()
    config.data.fold = 0
    check_config(config)
    config.data.split_file = "split.json"
    with pytest.raises(InputError, match=r"data\.fold is 0 .*leave out one"):
        check_config(config)


def test_unknown_hippocampus_variant_is_refused():
    with pytest.raises(ValueError, match="wcc"):
        hippocampus.get_config("whole_mse")


WRONG = {
    "loss.name": "mse",
    "model.dropout_rate": 1.0,
    "train.foreground_fraction": 1.5,
    "train.patch_shape": (128, 128, 12),
    "train.steps": 1010,
    "train.flip_axes": (0, 3),
    "data.window_hu": (240.0, -120.0),
    "data.shape": (64, 64, 64),
    "evaluate.overlap": (0.5, 0.5, 1.0),
    "evaluate.window_shape": (128, 128, 12),
    "evaluate.samples": 1,
    "data.split_shares": (63, 0, 55),
    "data.fold": 5,
    "data.folds": 1,
    "loss.wcc_weights": ((1.0, 1.0, 1.0), (1.0, 1.0)),
    "seed": 2**32,
    "data.phantom_size": (96, 96),
}
WRONG_KINDS = [
    ("data.liver_labels", (1.5,)),  # would be prepared as label 1 without a voxel
    ("data.liver_labels", (0,)),
    ("data.tumor_labels", (300,)),
    ("data.liver_labels", ("liver",)),
    ("data.window_hu", ("a", "b")),
    ("data.window_hu", (-math.inf, math.inf)),
    ("data.outside_hu", math.nan),
    ("evaluate.overlap", ("a", 0.2, 0.2)),
    ("evaluate.overlap", ((0.2,), 0.2, 0.2)),
    ("train.patch_shape", ((128, 128), 16, 16)),
    ("evaluate.members", (1, 2)),
    ("loss.wcc_weights", (((1.0,), 1.0), (3.0, 3.0))),
    ("train.flip_axes", (0.0,)),
    ("train.learning_rate", math.nan),
    ("train.clip_norm", math.nan),
    ("loss.wcc_weights", ((math.nan, 1.0), (3.0, 3.0))),
    ("loss.wcc_weights", ((0.0, 0.0), (0.0, 0.0))),
    ("loss.wcc_weights", (1.0, 3.0)),
]


@pytest.mark.parametrize(("field", "value"), [*WRONG.items(), *WRONG_KINDS])
def test_a_wrong_field_is_named(field, value):
    config = base.get_config()
    config.update_from_flattened_dict({field: value})
    with pytest.raises(InputError, match=field.replace(".", r"\.")) as raised:
        check_config(config)
    assert "\n" not in str(raised.value)


def test_channels_come_in_whole_groups():
    config = base.get_config()
    config.model.features, config.model.norm = 12, "batch"
    check_config(config)
    config.model.norm = "group"
    with pytest.raises(InputError, match=r"model\.features is 12, .*multiple of 8"):
        check_config(config)


def test_auto_shape_is_for_tumours_alone():
    config = load("tumor_large_wcc")
    config.data.shape = "auto"
    check_config(config)
    config.data.target = "liver"
    with pytest.raises(InputError, match="tumor only"):
        check_config(config)


def test_the_demo_has_the_validation_cases_that_its_bounds_need():
    data = load("demo").data
    ids = [f"case_{i}" for i in range(data.phantom_cases)]
    found = split_of(ids, 0, data.split_shares)
    assert greatest_level(len(found.validation)) >= 0.9


def test_unknown_and_missing_fields_are_named():
    config = base.get_config()
    config.train.learning_rat = 1.0
    del config.model.depth
    with pytest.raises(InputError) as raised:
        check_config(config)
    assert "model.depth is missing" in str(raised.value)
    assert "train.learning_rat is unknown" in str(raised.value)


def test_a_run_of_an_earlier_version_is_read_as_the_same_run(tmp_path):
    """It holds a field that is gone, and lacks the name of the network."""
    stored = {**flat_config(base.get_config()), "evaluate.halo": [0, 0, 0]}
    for name in (
        *("model.name", "data.split_shares"),
        *("data.split_seed", "data.phantom_seed", "data.fold", "data.folds"),
    ):
        del stored[name]
    assert flat_config(from_flat(stored, tmp_path)) == flat_config(base.get_config())


def test_a_field_that_others_are_divided_by_is_named(tiny_config):
    tiny_config.train.steps_per_call = 0
    with pytest.raises(InputError, match=r"train\.steps_per_call is 0, must be"):
        check_config(tiny_config)
