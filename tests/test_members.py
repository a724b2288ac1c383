"""Ensembles of finished trainings: their samples, and what is no ensemble."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax import preparation, stages
from unc_jax.check_config import check_config
from unc_jax.config import stored_config
from unc_jax.errors import InputError
from unc_jax.keys import key_for
from unc_jax.segmentation.checkpoint import Checkpoints
from unc_jax.segmentation.models import build_model
from unc_jax.segmentation.train import empty_state
from unc_jax.study import members, run_folder
from unc_jax.study.predictor import load_predictor
from unc_jax.uncertainty.sampling import build_monte_carlo

SEEDS = (3, 1)


def write_member(folder, state, config, *, step=None, **fields):
    recorded = {**stored_config(config), **fields}
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(step or config.train.steps, state, recorded, None)
    return str(folder)


def noise(seed):
    random = np.random.default_rng(seed)

    def fill(path, leaf):
        values = 0.3 * random.standard_normal(leaf.shape)
        of_variance = "var" in jax.tree_util.keystr(path[-1:])
        return jnp.asarray(np.abs(values) + 1 if of_variance else values, leaf.dtype)

    return fill


@pytest.fixture
def ensemble(tiny_config, tmp_path):
    """The tiny config as an ensemble under dropout, and its cohort."""
    cohort = preparation.prepare(tiny_config)
    zeros = empty_state(tiny_config, build_model(tiny_config))
    folders = []
    for seed in SEEDS:  # weights of noise: training would take a minute
        state = jax.tree_util.tree_map_with_path(noise(seed), zeros)
        own = {"seed": seed, "cohort": cohort.fingerprint, "precision": "float32"}
        folders.append(
            write_member(tmp_path / f"seed{seed}", state, tiny_config, **own)
        )
    tiny_config.evaluate.members = tuple(folders)
    return tiny_config, cohort


def test_a_folder_says_whose_rows_it_has(ensemble, tmp_path):
    """Rows of another seed replace those before; the config is then theirs too."""
    config, cohort = ensemble
    folder = tmp_path / "run"
    for config.seed in (0, 7):
        stages.evaluate_run(config, cohort, folder, replace=True)
        found = run_folder.open_run(folder)
        assert found.seed == found.evaluation["settings"]["seed"] == config.seed


def test_every_member_draws_samples_of_its_own(ensemble, tmp_path):
    config, cohort = ensemble
    config.evaluate.mask_scope = "volume"
    config.evaluate.window_shape = (16, 16, 8)
    config.evaluate.chunk = 3  # of four
    predictor = load_predictor(config, tmp_path / "run", cohort.images.shape[1:])
    assert (predictor.samples, len(predictor.networks)) == (8, 2)
    image = np.asarray(cohort.images[5], np.float32)
    found = predictor.predict(image, 5)
    alone = build_monte_carlo(
        predictor.model, samples=4, patch_shape=(16, 16, 8), overlap=0.0,
        mask_scope="volume", window_batch=1, chunk=1,
    )  # fmt: skip
    parts = []
    for index, variables in enumerate(predictor.networks):
        key = key_for(config.seed, "monte_carlo")
        for number in (index, 5):  # of the member, then of the volume
            key = jax.random.fold_in(key, number)
        parts.append(alone(variables, image, key))
    sparse = np.concatenate([one.sparse for one in parts])
    np.testing.assert_allclose(found.sparse, sparse, atol=1e-3)
    mean = np.mean([one.mean for one in parts], axis=0)
    np.testing.assert_allclose(found.mean, mean, atol=1e-5)
    # Neither the networks nor the masks are the same.
    first, second = (parts[i].mean for i in (0, 1))
    assert np.abs(first - second).max() > 1e-3
    assert not any(one.identical for one in parts)


def test_rows_say_of_which_seeds_they_are(ensemble):
    config, cohort = ensemble
    record = stages.made_with(config, cohort, [1, 1], ["a", "b"])
    assert record["seeds"] == list(SEEDS)
    config.evaluate.members = ()
    assert stages.made_with(config, cohort, [1], ["a"])["seeds"] == [0]


def check(config, cohort, run, *, training=False, replace=False):
    flags = {"training": training, "evaluating": True, "replace": replace}
    stages.check_run(config, cohort, run, **flags)


def test_an_ensemble_is_evaluated_and_not_trained(ensemble, tmp_path):
    for source in ("dropout", "ensemble"):
        ensemble[0].evaluate.source = source
        config, cohort = ensemble
        check(config, cohort, tmp_path / "run")
        with pytest.raises(InputError, match="an ensemble is not trained"):
            check(config, cohort, tmp_path / "run", training=True)


REFUSED = [
    ({"seed": SEEDS[0]}, r"seed3 and \S+again0 are both of seed 3"),
    ({"loss.name": "dice"}, 'another config.*loss.name: "dice" -> "wcc"'),
    ({"model.dropout_rate": 0.5}, "model.dropout_rate: 0.5 -> 0.3"),
    ({"train.steps": 4}, "train.steps: 4 -> 8"),
    ({"data.fold": 1, "cohort": "b" * 9}, "test cases of this .*data.fold: 1 -> -1"),
    ({"cohort": "b" * 9}, 'another split.*cohort: "bbbbbbbbb" -> "'),
]


def test_what_is_no_member_is_one_line(ensemble, tmp_path):
    config, cohort = ensemble
    known = config.evaluate.members
    for number, (changes, words) in enumerate(REFUSED):
        config.evaluate.members = ()
        fields = {"seed": 7, "cohort": cohort.fingerprint, **changes}
        folder = tmp_path / f"again{number}"
        one = write_member(folder, {"a": np.zeros(1)}, config, **fields)
        config.evaluate.members = (*known, one)
        with pytest.raises(InputError, match=words) as refused:
            check(config, cohort, tmp_path / "run", replace=True)
        assert "\n" not in str(refused.value)


def test_a_member_that_is_still_in_training_is_refused(ensemble, tmp_path):
    config, cohort = ensemble
    steps, known = config.train.steps, config.evaluate.members
    config.evaluate.members = ()
    fields = {"seed": 7, "cohort": cohort.fingerprint, "step": steps - 1}
    late = write_member(tmp_path / "late", {"a": np.zeros(1)}, config, **fields)
    config.evaluate.members = (*known, late)
    words = f"late is trained for {steps - 1} of its {steps} updates; finish it"
    with pytest.raises(InputError, match=words):
        check(config, cohort, tmp_path / "run")


def test_free_fields_and_places_do_not_matter(ensemble, tmp_path):
    config, cohort = ensemble
    config.data.root = str(tmp_path / "moved")
    config.evaluate.samples = 9
    config.train.residence = "host"
    assert members.seeds_of(config, cohort.fingerprint) == list(SEEDS)
    config.evaluate.members = (*config.evaluate.members, str(tmp_path / "absent"))
    with pytest.raises(InputError, match="absent holds no trained model"):
        members.seeds_of(config, cohort.fingerprint)


@pytest.mark.parametrize(
    ("source", "count", "fits"),
    [
        *(("dropout", 0, True), ("dropout", 1, False), ("dropout", 2, True)),
        *(("ensemble", 0, False), ("ensemble", 1, False), ("ensemble", 3, True)),
        *(("flips", 0, True), ("flips", 2, False)),
    ],
)
def test_sources_and_members(tiny_config, source, count, fits):
    tiny_config.evaluate.source = source
    tiny_config.evaluate.members = tuple(map(str, range(count)))
    if fits:
        check_config(tiny_config)
    else:
        with pytest.raises(InputError, match=f"names {count} run"):
            check_config(tiny_config)
