"""How often each stage compiles: once, and on a second start not at all."""

import collections
import contextlib
import shutil

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from unc_jax import compilation, preparation
from unc_jax.segmentation.feed import build_feed
from unc_jax.segmentation.models import build_model
from unc_jax.segmentation.train import build_train_step, create_state, variables_of
from unc_jax.uncertainty.sampling import build_monte_carlo

_REQUEST = "/jax/core/compile/backend_compile_duration"
_HIT = "/jax/compilation_cache/cache_hits"
_MISS = "/jax/compilation_cache/cache_misses"


@contextlib.contextmanager
def counted():
    """Counts programs asked of the compiler, and of the cache, while it is open."""
    counts = collections.Counter()

    def note(event, *_, **__):
        counts[event] += 1

    jax.monitoring.register_event_listener(note)
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        yield counts
    finally:
        jax.monitoring.unregister_event_listener(note)
        jax.monitoring.unregister_event_duration_listener(note)


@pytest.fixture
def no_cache():
    """Takes the cache of the tests away, as where a user named none."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", before)
    compilation_cache.reset_cache()


def two_steps():
    """A compiled random walk of its own, whose every bit counts."""

    def step(x, key):
        return jax.numpy.sin(x) + 0.1 * jax.random.normal(key, x.shape)

    step = jax.jit(step)
    x = np.ones(7, np.float32)
    for seed in range(2):
        x = step(x, jax.random.key(seed))
    return np.asarray(x)


@pytest.mark.usefixtures("no_cache")
def test_a_second_start_compiles_nothing_wherever_the_folder_went(tmp_path):
    results, counts = [], []
    for folder in (tmp_path / "here", tmp_path / "there"):
        if results:
            shutil.copytree(tmp_path / "here", folder)
        folder.mkdir(exist_ok=True)
        jax.clear_caches()  # as a new process
        with counted() as count, compilation.cache_compilations(folder):
            results.append(two_steps())
        counts.append(count)
    np.testing.assert_array_equal(*results)
    assert counts[0][_MISS] > 0
    assert counts[1][_MISS] == 0
    assert counts[1][_HIT] == counts[0][_HIT] + counts[0][_MISS]
    assert jax.config.jax_compilation_cache_dir is None


@pytest.mark.usefixtures("no_cache")
def test_a_torn_entry_costs_a_compilation_alone(tmp_path):
    with compilation.cache_compilations(tmp_path):
        expected = two_steps()
    entries = list((tmp_path / ".cache").rglob("*-cache"))
    assert entries
    for entry in entries:
        entry.write_bytes(entry.read_bytes()[:-20])
    jax.clear_caches()
    with compilation.cache_compilations(tmp_path):  # no warning, which were an error
        np.testing.assert_array_equal(two_steps(), expected)


@pytest.mark.usefixtures("no_cache")
@pytest.mark.parametrize("elsewhere", ["another account", "no home", "a link"])
def test_programs_of_a_received_folder_are_not_run(tmp_path, monkeypatch, elsewhere):
    folder = tmp_path / "received"
    folder.mkdir()
    with compilation.cache_compilations(folder):
        two_steps()
    if elsewhere == "a link":
        (folder / ".cache").rename(tmp_path / "cache")
        (folder / ".cache").symlink_to(tmp_path / "cache")
    else:
        home = tmp_path / "home"
        home.touch() if elsewhere == "no home" else home.mkdir()
        monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    before = sorted(tmp_path.rglob("*-cache"))
    assert before
    jax.clear_caches()
    with counted() as count, compilation.cache_compilations(folder):
        two_steps()
    assert count[_HIT] == 0
    assert (sorted(tmp_path.rglob("*-cache")) != before) == (
        elsewhere == "another account"
    )


@pytest.mark.usefixtures("no_cache")
def test_a_cache_that_the_user_named_is_left(tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    with compilation.cache_compilations(tmp_path):
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    assert not (tmp_path / ".cache").exists()


def test_training_compiles_in_its_first_call(tiny_config):
    cohort = preparation.prepare(tiny_config)
    model = build_model(tiny_config)
    feed = build_feed(tiny_config, cohort, build_train_step(tiny_config, model))
    state, _ = feed(create_state(tiny_config, model), 0)
    with counted() as count:
        for step in (2, 4, 6):
            state, losses = feed(state, step)
        jax.block_until_ready(losses)
    assert count[_REQUEST] == 0


def test_the_first_volume_compiles_for_all(tiny_config):
    """Eight windows in threes: 3 + 3 + 2, the last call filled up."""
    model = build_model(tiny_config)
    variables = variables_of(create_state(tiny_config, model))
    monte_carlo = build_monte_carlo(
        model,
        samples=3,
        patch_shape=(8, 8, 4),
        overlap=0.0,
        mask_scope="volume",
        window_batch=3,
        chunk=2,
    )
    generator = np.random.default_rng(0)
    requests = []
    for number in range(3):
        volume = generator.normal(size=(16, 16, 8)).astype(np.float32)
        with counted() as count:
            monte_carlo(variables, volume, jax.random.key(number))
        requests.append(count[_REQUEST])
    assert requests[0] > 0
    assert requests[1:] == [0, 0]


def test_memory_of_the_compiler_is_returned(monkeypatch):
    """Not seen in its size, which depends on the system: the allocator is asked."""
    trims = []

    class Library:
        malloc_trim = staticmethod(trims.append)

    monkeypatch.setattr(compilation.ctypes, "CDLL", lambda name: Library)
    with compilation.returning_memory():
        jax.monitoring.record_event_duration_secs(_REQUEST, 0.1)
        assert trims == []  # a short one leaves little
        jax.monitoring.record_event_duration_secs(_REQUEST, 2.0)
        assert trims == [0]
    jax.monitoring.record_event_duration_secs(_REQUEST, 2.0)
    assert trims == [0]
