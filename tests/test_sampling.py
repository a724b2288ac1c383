"""The Monte Carlo call: its distribution, its scopes, its independence of chunking."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.data import patches
from unc_jax.errors import InputError
from unc_jax.segmentation.sliding import build_features, build_point_prediction
from unc_jax.segmentation.unet import UNet3D
from unc_jax.uncertainty import measures, sampling

MODEL = UNet3D(features=4, depth=2, dropout_rate=0.5)
PATCH = (8, 8, 4)
VOLUME = np.random.default_rng(0).standard_normal((12, 8, 6)).astype(np.float32)
SETTINGS = {
    "samples": 4,
    "patch_shape": PATCH,
    "overlap": 0.25,
    "mask_scope": "volume",
    "window_batch": 2,
    "chunk": 4,
}


@pytest.fixture(scope="module")
def variables():
    init = functools.partial(MODEL.init, train=False, dropout=False)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.standard_normal(leaf.shape).astype(leaf.dtype) * 0.2
        return np.abs(values) + 1 if path[-1].key == "var" else values

    shapes = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, *PATCH, 1)))
    return jax.tree_util.tree_map_with_path(draw, shapes)


@pytest.fixture(scope="module")
def predict(variables):
    @functools.cache
    def built(**changes):
        return sampling.build_monte_carlo(MODEL, **{**SETTINGS, **changes})

    def run(key=0, volume=VOLUME, **changes):
        key = jax.random.key(key) if isinstance(key, int) else key
        return built(**changes)(variables, volume, key)

    return run


def sample_windows(variables, windows, scope, chunk=2, model=MODEL):
    keys = jax.random.split(jax.random.key(1), 5)
    run = functools.partial(
        sampling.sample_windows, model, mask_scope=scope, chunk=chunk
    )
    places = jnp.arange(windows.shape[0])
    return np.asarray(jax.jit(run)(variables, windows, places, keys))


@pytest.fixture(scope="module")
def same_window_twice():
    window = jax.random.normal(jax.random.key(2), (1, *PATCH, 1))
    return jnp.concatenate([window, window])


def test_samples_are_the_masked_network(variables, same_window_twice):
    """Sample by sample what one plain apply with that key gives."""
    found = sample_windows(variables, same_window_twice, "volume")
    keys = jax.random.split(jax.random.key(1), 5)
    plain = jax.jit(
        lambda key: MODEL.apply(
            variables,
            same_window_twice[:1],
            train=False,
            dropout=True,
            rngs={"dropout": key},
        )
    )
    for sample, key in zip(found, keys, strict=True):
        np.testing.assert_allclose(sample[0], jax.nn.sigmoid(plain(key)[0]), atol=1e-5)


def test_volume_scope_keeps_one_network_per_sample(variables, same_window_twice):
    samples = sample_windows(variables, same_window_twice, "volume")
    np.testing.assert_array_equal(samples[:, 0], samples[:, 1])
    assert len(np.unique(samples[:, 0].sum((1, 2, 3)))) == 5


def test_window_scope_draws_afresh_for_each_window(variables, same_window_twice):
    samples = sample_windows(variables, same_window_twice, "window")
    assert (samples[:, 0] != samples[:, 1]).any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize(
    ("scope", "alike"), [("cohort", True), ("volume", False), ("window", False)]
)
def test_only_cohort_scope_shares_networks_between_cases(predict, scope, alike):
    keys = (sampling.volume_key(jax.random.key(3), case, scope) for case in (0, 1))
    first, second = (predict(key, mask_scope=scope).masks for key in keys)
    assert np.array_equal(first, second) == alike


@pytest.mark.parametrize("scope", sampling.MASK_SCOPES)
def test_scans_without_a_number_share_the_networks_of_the_cohort(scope):
    key = jax.random.key(3)
    assert sampling.volume_key(key, None, scope) == key


@pytest.mark.parametrize("scope", sampling.MASK_SCOPES)
def test_chunks_change_nothing(variables, same_window_twice, scope):
    one, all_at_once = (
        sample_windows(variables, same_window_twice, scope, chunk) for chunk in (1, 5)
    )
    np.testing.assert_allclose(one, all_at_once, atol=1e-6)


def test_same_key_same_prediction_another_key_another(predict):
    first, again, other = predict(0), predict(0), predict(1)
    np.testing.assert_array_equal(first.mean, again.mean)
    np.testing.assert_array_equal(first.masks, again.masks)
    assert not np.array_equal(first.mean, other.mean)


def test_window_batch_changes_nothing(predict):
    """Not even where the last of the calls is filled up: three windows in twos."""
    volume = np.concatenate([VOLUME, VOLUME])[:20, :, :4]
    two, three = (predict(volume=volume, window_batch=batch) for batch in (2, 3))
    np.testing.assert_allclose(two.mean, three.mean, atol=1e-6)
    np.testing.assert_allclose(two.uncertainty, three.uncertainty, atol=1e-6)


def stitched_samples(variables, key):
    """(4, x, y, z) by the definition: one key per sample, windows stitched."""
    corners = patches.window_corners(VOLUME.shape, PATCH, 0.25)
    windows = patches.extract(jnp.asarray(VOLUME), corners, PATCH)[..., None]

    @jax.jit
    def one_window(window, key):
        logits = MODEL.apply(
            variables, window[None], train=False, dropout=True, rngs={"dropout": key}
        )
        return jax.nn.sigmoid(logits[0])

    samples = []
    for index in range(4):
        own = jax.random.fold_in(key, index)
        cut = jnp.stack([one_window(window, own) for window in windows])
        samples.append(patches.stitch(cut, corners, VOLUME.shape))
    return np.stack(samples).astype(np.float64)


def test_prediction_is_what_the_formulas_say(predict, variables):
    """All that leaves the device, recomputed in NumPy from samples drawn one by one."""
    prediction = predict(key=3)
    samples = stitched_samples(variables, jax.random.key(3))
    mean, inside = samples.mean(0), samples.mean(0) >= 0.5
    term = -(samples * np.log(samples)).mean(0)
    both = term - ((1 - samples) * np.log1p(-samples)).mean(0)
    whole = -mean * np.log(mean) - (1 - mean) * np.log1p(-mean)
    np.testing.assert_allclose(prediction.mean, mean, atol=1e-5)
    halves = [
        float(measures.mean_labelled_uncertainty(half))
        for half in (samples[:2], samples[2:])
    ]
    np.testing.assert_allclose(prediction.halves, halves, atol=1e-5)
    np.testing.assert_allclose(prediction.uncertainty, term, atol=1e-5)
    masks = np.unpackbits(prediction.masks, axis=-1, count=VOLUME.shape[2])
    np.testing.assert_array_equal(masks, samples >= 0.5)
    assert prediction.volumes.tolist() == (samples >= 0.5).sum((1, 2, 3)).tolist()
    found = measures.measure_all(prediction)
    assert not prediction.identical
    for value, expected in (
        (found["u_labelled"], term[inside].mean()),
        (found["u_labelled_binary"], both[inside].mean()),
        (found["predictive_entropy"], whole[inside].mean()),
        (found["mutual_information"], (whole - both)[inside].mean()),
    ):
        assert value == pytest.approx(expected, abs=1e-5)


class FailingOnce:
    """The network on a device that fails with this message at the first call."""

    def __init__(self, message):
        self.message, self.calls = message, 0

    def apply(self, *arguments, **options):
        self.calls += 1
        if self.calls == 1:
            raise jax.errors.JaxRuntimeError(self.message)
        return MODEL.apply(*arguments, **options)


def test_out_of_memory_shrinks_the_chunk_with_the_same_result(predict, variables):
    expected = predict(key=5)
    model = FailingOnce("RESOURCE_EXHAUSTED: out of memory")
    monte_carlo = sampling.build_monte_carlo(model, **{**SETTINGS, "chunk": 2})
    found = monte_carlo(variables, VOLUME, jax.random.key(5))
    assert model.calls > 1
    np.testing.assert_allclose(found.mean, expected.mean, atol=1e-6)


def test_other_errors_of_the_device_are_not_swallowed(variables):
    model = FailingOnce("INTERNAL: broken")
    monte_carlo = sampling.build_monte_carlo(model, **{**SETTINGS, "chunk": 2})
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        monte_carlo(variables, VOLUME, jax.random.key(5))
    assert model.calls == 1  # no second try


def test_rate_zero_has_no_spread(variables):
    model = UNet3D(features=4, depth=2, dropout_rate=0.0)
    prediction = sampling.build_monte_carlo(model, **SETTINGS)(
        variables, VOLUME, jax.random.key(0)
    )
    point = build_point_prediction(
        model, patch_shape=PATCH, overlap=0.25, window_batch=2
    )
    assert prediction.identical
    np.testing.assert_allclose(prediction.mean, point(variables, VOLUME), atol=1e-5)


@pytest.mark.parametrize("changes", [{"samples": 1}, {"mask_scope": "patient"}])
def test_impossible_settings_are_refused(changes):
    with pytest.raises(InputError):
        sampling.build_monte_carlo(MODEL, **{**SETTINGS, **changes})


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_features_are_the_mean_of_the_bottleneck(variables, batch):
    """Of the same windows; what flax captures of the block is the reference."""
    grid = {"patch_shape": PATCH, "overlap": 0.25, "window_batch": batch}
    corners = patches.window_corners(VOLUME.shape, PATCH, 0.25)
    windows = patches.extract(jnp.asarray(VOLUME), corners, PATCH)[..., None]
    _, found = MODEL.apply(
        *(variables, windows),
        train=False,
        dropout=False,
        capture_intermediates=lambda module, _: module.name == "blocks_down1_conv1",
        mutable=["intermediates"],
    )
    (bottleneck,) = found["intermediates"]["blocks_down1_conv1"]["__call__"]
    features = build_features(MODEL, **grid)(variables, VOLUME)
    np.testing.assert_allclose(
        features, bottleneck.mean(axis=(0, 1, 2, 3)), rtol=1e-4, atol=1e-5
    )


def test_features_of_a_volume_smaller_than_the_window(variables):
    padded = np.pad(VOLUME, [(0, 2), (0, 0), (0, 4)], mode="edge")
    grid = {"patch_shape": padded.shape, "overlap": 0.25, "window_batch": 1}
    features = build_features(MODEL, **grid)
    found, expected = features(variables, VOLUME), features(variables, padded)
    np.testing.assert_array_equal(found, expected)


def test_only_who_asks_gets_features(variables):
    """No collection beside the network's own comes into a checkpoint."""
    assert set(variables) == {"params", "batch_stats"}


def test_a_network_without_features_has_none():
    class Plain(nn.Module):
        @nn.compact
        def __call__(self, x, *, train, dropout):
            return x[..., 0]

    grid = {"patch_shape": PATCH, "overlap": 0.25, "window_batch": 2}
    assert build_features(Plain(), **grid)({}, VOLUME).shape == (0,)


def test_samples_per_pass_by_the_memory_of_an_accelerator(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")

    def chunk(depth, gigabytes):
        return sampling.default_chunk(
            10,
            values=256 * 256 * depth * 32,
            bytes_each=2,
            memory=gigabytes * 10**9,
        )

    assert [chunk(16, size) for size in (80, 6, 1, 0)] == [10, 5, 1, 1]
    # Ten of these would have 2.7 billion values, more than 32 bits count.
    assert chunk(64, 1000) == 7


def test_one_sample_per_pass_on_a_cpu():
    found = sampling.default_chunk(10, values=1, bytes_each=4, memory=10**12)
    assert found == 1
