"""Eight simulated devices do as one does. They live in a process of their own."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from unc_jax import preparation
from unc_jax.config import flat_config, from_flat
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.keys import key_for
from unc_jax.segmentation import devices
from unc_jax.segmentation.feed import build_feed
from unc_jax.segmentation.models import build_model
from unc_jax.segmentation.train import build_train_step, create_state, variables_of
from unc_jax.uncertainty.sampling import build_monte_carlo

COUNT = 8


@pytest.fixture
def config(tiny_config):
    tiny_config.train.batch = COUNT
    # NAdam's first updates are signs: at a high rate rounding would grow into them.
    tiny_config.train.learning_rate = 1e-5
    tiny_config.data.split_file = str(
        Path(tiny_config.data.prepared).parent / "split.json"
    )
    names = [f"liver_{i}" for i in range(6)]
    parts = {"train": names[:4], "validation": names[4:5], "test": names[5:]}
    files.write_json(Path(tiny_config.data.split_file), parts)
    return tiny_config


def results_of(config):
    """Losses of two updates, the gradients of the first, samples of a volume."""
    cohort = preparation.prepare(config)
    model = build_model(config)
    state = devices.replicate(create_state(config, model))
    monte_carlo = build_monte_carlo(
        model,
        samples=3,
        patch_shape=config.train.patch_shape,
        overlap=0.25,
        mask_scope="volume",
        window_batch=5,
        chunk=2,
    )
    image = np.asarray(cohort.images[0], np.float32)
    prediction = monte_carlo(variables_of(state), image, jax.random.key(0))
    feed = build_feed(config, cohort, build_train_step(config, model))
    state, losses = feed(state, 0)
    moments = jax.tree.leaves(jax.device_get(state.optimizer))
    return {
        "losses": np.asarray(losses),
        "mean": prediction.mean,
        "masks": prediction.masks,
        **{f"moment {i}": np.asarray(leaf) for i, leaf in enumerate(moments)},
    }


def in_eight(task, *paths):
    """Runs `task` of this file on eight simulated devices; what it prints."""
    root = Path(__file__).parents[1]
    devices = f"--xla_force_host_platform_device_count={COUNT}"
    code = f"import test_devices; test_devices.{task}(*{list(map(str, paths))})"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={
            **os.environ,
            "XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {devices}",
            "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def save_results(config_file, output):
    assert jax.device_count() == COUNT
    config = from_flat(files.read_json(Path(config_file)), config_file)
    np.savez(output, **results_of(config))


def test_eight_devices_train_and_sample_as_one_does(config, tmp_path):
    files.write_json(tmp_path / "config.json", flat_config(config))
    here = results_of(config)
    in_eight("save_results", tmp_path / "config.json", tmp_path / "results.npz")
    there = np.load(tmp_path / "results.npz")
    assert set(there) == set(here)
    for name, value in here.items():
        if name == "masks":
            # A probability of 0.5 up to rounding may fall to either side.
            changed = np.unpackbits(there[name] ^ value).mean()
            assert changed < 1e-3
            continue
        scale = np.abs(value).max() or 1.0
        np.testing.assert_allclose(
            there[name], value, rtol=1e-3, atol=1e-4 * scale, err_msg=name
        )
    np.testing.assert_allclose(there["losses"], here["losses"], rtol=1e-5)


def test_batches_that_cannot_be_shared_are_refused(config, monkeypatch):
    assert devices.rounded_up(3) == 3
    devices.check_batch(7)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    assert [devices.rounded_up(n) for n in (1, 8, 9)] == [8, 8, 16]
    with pytest.raises(InputError, match="8 devices cannot share evenly; take 16"):
        devices.check_batch(12)


def test_options_that_the_compiler_does_not_know_are_left_out():
    known = {"xla_gpu_force_conv_nhwc": True}
    assert devices.accepted(known) == known
    assert devices.accepted({**known, "xla_no_such_option": True}) == {}


def test_a_cpu_gets_no_options():
    assert devices.compiler_options() == {}


def test_weights_drawn_by_a_quickly_compiled_program_are_the_same_bits(tiny_config):
    model = build_model(tiny_config)
    example = np.zeros((1, *tiny_config.train.patch_shape, 1), np.float32)
    optimised = {"xla_backend_optimization_level": 3}
    drawn = jax.jit(
        lambda key: model.init(key, example, train=False, dropout=False),
        compiler_options=optimised,
    )(key_for(tiny_config.seed, "init"))
    params = create_state(tiny_config, model).params
    jax.tree.map(np.testing.assert_array_equal, params, drawn["params"])
