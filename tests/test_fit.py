"""Training is a function of config and step, however it is fed, stopped or resumed."""

import itertools
import json
import os
import signal
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from folders import state_of, steps_saved, wait_for_step

from unc_jax import preparation, stages
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.segmentation import fit, resume
from unc_jax.segmentation.checkpoint import Checkpoints
from unc_jax.segmentation.feed import build_feed, repeat
from unc_jax.segmentation.models import build_model
from unc_jax.segmentation.train import (
    build_objective,
    build_train_step,
    create_state,
    flip,
    variables_of,
)
from unc_jax.study.validation import build_validation


def assert_same_bits(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)


class Counter(NamedTuple):
    """A state of training that only counts."""

    step: jax.Array


def keep_patches(state, batch):
    """In place of an update: gives the patches back as its loss."""
    patches = jnp.stack([jnp.float32(array) for array in batch])
    return Counter(state.step + 1), patches


def test_host_and_device_feed_the_same_patches(tiny_config):
    cohort = preparation.prepare(tiny_config)
    fed = []
    for residence in ("device", "host"):
        tiny_config.train.residence = residence
        feed = build_feed(tiny_config, cohort, keep_patches)
        state, patches = Counter(jnp.int32(0)), []
        for step in (0, 2):
            state, of_call = feed(state, step)
            patches.extend(np.asarray(of_call))
        assert state.step == 4
        fed.append(patches)
    np.testing.assert_array_equal(*fed)
    assert fed[0][0].shape == (2, 2, 8, 8, 4)
    for one, other in itertools.combinations(fed[0], 2):
        assert (one != other).any()


def test_the_average_of_the_weights_follows_them(tiny_config):
    cohort = preparation.prepare(tiny_config)
    tiny_config.train.residence = "host"
    tiny_config.train.flip_axes = (0, 2)
    tiny_config.train.average_decay = 0.9
    model = build_model(tiny_config)
    feed = build_feed(tiny_config, cohort, build_train_step(tiny_config, model))
    state, losses = feed(create_state(tiny_config, model), 0)
    assert np.isfinite(losses).all()
    moved = jax.tree.map(lambda a, b: (a != b).any(), state.average, state.params)
    assert any(jax.tree.leaves(moved))
    assert variables_of(state)["params"] is state.average


@pytest.fixture
def objectives(tiny_config):
    """Loss of a batch as a function of params, plain and rematerialised; params."""
    model = build_model(tiny_config)
    state = create_state(tiny_config, model)
    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 4))
    labels, key = (images > 1).astype(jnp.uint8), jax.random.key(1)
    listed = []
    for tiny_config.train.rematerialise in (False, True):
        objective = build_objective(tiny_config, model)
        rest = (state.batch_stats, images, labels, key)
        listed.append(lambda params, f=objective, rest=rest: f(params, *rest)[0])
    return listed, state.params


def test_rematerialisation_keeps_less(objectives):
    kept = []
    for loss_of in objectives[0]:
        pull = jax.eval_shape(lambda p, f=loss_of: jax.vjp(f, p)[1], objectives[1])
        sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(pull)]
        kept.append(sum(sizes))
    assert kept[1] < kept[0] / 2


@pytest.mark.slow
def test_rematerialisation_changes_no_gradient(objectives):
    plain, again = (
        jax.jit(jax.value_and_grad(f))(objectives[1]) for f in objectives[0]
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), plain, again)


@pytest.mark.slow
def test_one_program_for_many_steps_is_the_same_training(tiny_config):
    cohort = preparation.prepare(tiny_config)
    model = build_model(tiny_config)
    train_step = build_train_step(tiny_config, model)
    images, labels = (
        jnp.asarray(array[:4, :8, :8, :4]).reshape(2, 2, 8, 8, 4)
        for array in (cohort.images, cohort.labels)
    )
    results = []
    for scanned in (False, True):
        many = repeat(
            train_step,
            lambda state, data, i: (data[0][i], data[1][i]),
            2,
            scanned=scanned,
        )
        state, losses = many(create_state(tiny_config, model), (images, labels))
        assert (int(state.step), losses.shape) == (2, (2,))
        results.append(losses)
    # NAdam's first updates are signs: rounding of tiny gradients shows in the second.
    np.testing.assert_allclose(*results, rtol=1e-2)
    assert results[0][0] != results[0][1]


def test_flip_mirrors_images_and_labels_together():
    patches = jnp.arange(16 * 8).reshape(16, 2, 2, 2)
    images, labels = (
        flip(jax.random.key(0), array, (1,)) for array in (patches, patches)
    )
    np.testing.assert_array_equal(images, labels)
    mirrored = (images[:, 0, 0, 0] == patches[:, 0, 1, 0]).sum()
    assert 0 < mirrored < 16


def test_killed_and_resumed_is_bitwise_the_undisturbed_run(
    start_main, tiny_config, tmp_path
):
    long = {"train.steps": 3000, "train.validate_every_steps": 3000}
    long["train.checkpoint_every_steps"] = 10
    folder = tmp_path / "run"
    killed = start_main("--stage=train", **long)
    wait_for_step(folder, 10, killed)
    killed.send_signal(signal.SIGSTOP)  # it holds the folder and makes no more steps
    second = start_main("--stage=train", **long)
    assert "in use by unc_jax.main --stage train" in second.communicate()[1]
    assert second.returncode == 2
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    stopped = start_main("--stage=train", **long)
    wait_for_step(folder, max(steps_saved(folder)) + 20, stopped)
    stopped.send_signal(signal.SIGTERM)
    _, errors = stopped.communicate(timeout=120)
    assert stopped.returncode == 128 + signal.SIGTERM
    assert "state saved" in errors
    step = max(steps_saved(folder))
    train = tiny_config.train
    train.steps = train.validate_every_steps = step + 10
    train.checkpoint_every_steps = 10
    cohort = preparation.prepare(tiny_config)
    for workdir in ("run", "undisturbed"):
        stages.train(tiny_config, cohort, tmp_path / workdir)
    resumed = state_of(tiny_config, folder)
    undisturbed = state_of(tiny_config, tmp_path / "undisturbed")
    assert resumed[0] == undisturbed[0] == step + 10
    assert_same_bits(resumed[1], undisturbed[1])
    steps = [
        json.loads(line)["step"]
        for line in (folder / "metrics.jsonl").read_text().splitlines()
        if "loss" in line
    ]
    assert steps == list(range(2, step + 12, 2))


@pytest.mark.slow
def test_a_signal_within_a_validation_saves_at_once(tiny_config, tmp_path):
    cohort, scores = preparation.prepare(tiny_config), iter([None, 0.5, 0.25])

    def validate(variables, giving_up):
        score = next(scores)
        if score is None:
            os.kill(os.getpid(), signal.SIGTERM)
        assert giving_up() == (score is None)
        return score

    with pytest.raises(fit.Stopped, match="at step 4, state saved") as stopped:
        fit.fit(tiny_config, cohort, tmp_path, validate)
    assert stopped.value.exit_code == 143
    fit.fit(tiny_config, cohort, tmp_path, validate)
    records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert [(r["step"], r.get("validation_dice")) for r in records] == [
        *((2, None), (4, None), (4, 0.5)),
        *((6, None), (8, None), (8, 0.25)),
    ]
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        like = create_state(tiny_config, build_model(tiny_config))
        assert checkpoints.restore(like, best=True).step == 4


def test_validation_gives_up_between_cases(tiny_config):
    cohort, asked = preparation.prepare(tiny_config), []
    validate = build_validation(tiny_config, cohort)
    variables = variables_of(create_state(tiny_config, build_model(tiny_config)))
    assert validate(variables, lambda: True) is None
    assert 0 <= validate(variables, lambda: asked.append(1)) <= 1
    assert len(asked) == len(cohort.split.validation)


def test_resuming_under_another_config_is_refused_with_the_difference():
    then = {"train.batch": 8, "train.steps": 10, "evaluate.samples": 10}
    then |= {"data.shape": [4, 4, 4], "cohort": "a"}
    resume.check_same({**then, "train.steps": 20, "evaluate.samples": 5}, then)
    with pytest.raises(InputError, match=r"train\.batch: 8 -> 4"):
        resume.check_same({**then, "train.batch": 4}, then)
    with pytest.raises(InputError, match=r"cohort: .*data\.shape: .4, 4, 4. -> .8, 8"):
        resume.check_same({**then, "data.shape": [8, 8, 8], "cohort": "b"}, then)


def test_a_cosine_schedule_is_not_extended():
    then = {"train.schedule": "cosine", "train.steps": 10, "train.steps_per_call": 5}
    resume.check_same({**then, "train.steps_per_call": 2}, then)
    with pytest.raises(InputError, match=r"train\.steps: 10 -> 20"):
        resume.check_same({**then, "train.steps": 20}, then)


@pytest.mark.parametrize(("score", "warns"), [(0.009, True), (0.01, False)])
def test_an_empty_foreground_is_warned_of(caplog, score, warns):
    with caplog.at_level("WARNING", logger="absl"):
        fit._warn_if_empty(score, 40)
    assert ("at step 40: the predicted foreground is empty" in caplog.text) == warns


def test_nan_stops_and_names_the_step():
    assert fit._finite_mean(jnp.array([1.0, 3.0]), 10) == 2.0
    with pytest.raises(FloatingPointError, match="step 8 "):
        fit._finite_mean(jnp.array([1.0, jnp.nan, jnp.inf, 1.0]), 10)


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    with (
        files.hold(tmp_path, "the first"),
        pytest.raises(InputError, match="in use by the first, process"),
        files.hold(tmp_path, "the second"),
    ):
        pass
    with files.hold(tmp_path, "free again"):
        pass


def test_a_training_goes_on_in_the_precision_it_began_in(
    tiny_config, tmp_path, monkeypatch
):
    cohort = preparation.prepare(tiny_config)
    tiny_config.train.steps = 4
    stages.train(tiny_config, cohort, tmp_path / "run")
    tiny_config.train.steps = 8
    assert resume.check_resumable(tiny_config, None, tmp_path / "run") == 4

    class Tpu:
        platform = "tpu"

    monkeypatch.setattr(jax, "devices", lambda *kind: [Tpu()])
    with pytest.raises(InputError, match="trained in float32 and would go on in bfl"):
        resume.check_resumable(tiny_config, None, tmp_path / "run")
    # It may be evaluated there.
    evaluated = resume.check_resumable(
        tiny_config, None, tmp_path / "run", to_train=False
    )
    assert evaluated == 4


def test_steps_that_no_call_ends_at_are_refused(tiny_config, tmp_path):
    """A run that was stopped after 6 steps would jump over its 8th, the last."""
    tiny_config.train.steps, tiny_config.train.steps_per_call = 6, 2
    tiny_config.train.validate_every_steps = 2
    tiny_config.train.checkpoint_every_steps = 2
    cohort = preparation.prepare(tiny_config)
    stages.train(tiny_config, cohort, tmp_path / "run")
    tiny_config.train.steps = tiny_config.train.validate_every_steps = 8
    tiny_config.train.checkpoint_every_steps = 8
    tiny_config.train.steps_per_call = 4
    with pytest.raises(InputError, match="has 6 steps, no multiple of"):
        resume.check_resumable(tiny_config, None, tmp_path / "run")
    tiny_config.train.steps_per_call = 2
    assert resume.check_resumable(tiny_config, None, tmp_path / "run") == 6
