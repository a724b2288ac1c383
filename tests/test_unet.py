import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from unc_jax.errors import InputError
from unc_jax.segmentation.unet import (
    UNet3D,
    channel_factors,
    drop_elements,
    scale_channels,
)

SMALL = {"features": 4, "depth": 3, "dropout_rate": 0.5}
IMAGE = jax.random.normal(jax.random.key(5), (2, 16, 8, 4, 1))
KEY = jax.random.key(0)
CHANNELS = (20, 3, 20)


def initialise(model, image=IMAGE):
    """Variables of the right shapes, without compiling the real initialisation."""
    init = functools.partial(model.init, train=False, dropout=False)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        values = rng.standard_normal(leaf.shape).astype(leaf.dtype) * 0.3
        return np.abs(values) + 1 if path[-1].key == "var" else values

    shapes = jax.eval_shape(init, jax.random.key(0), image)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def apply(model, variables, image, seed=0, **keywords):
    """model.apply under jit, compiled once per setting; the seed is of the dropout."""
    run = jitted(model, tuple(keywords.items()))
    return run(variables, image, jax.random.key(seed))


@functools.cache
def jitted(model, keywords):
    def run(variables, image, key):
        return model.apply(variables, image, rngs={"dropout": key}, **dict(keywords))

    return jax.jit(run)


def test_parameter_count_of_the_published_network():
    model = UNet3D(features=32, depth=4)
    shapes = jax.eval_shape(
        lambda: initialise(model, jnp.zeros((1, 16, 16, 16, 1)))["params"]
    )
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 14_605_377


def test_every_submodule_is_named():
    names = set(initialise(UNet3D(**SMALL))["params"])
    assert names == {
        "head",
        *(f"blocks_down{level}_conv{index}" for level in range(3) for index in (0, 1)),
        *(f"blocks_up{level}_conv{index}" for level in range(2) for index in (0, 1)),
    }


def reference_logits(variables, image, depth):
    """The published network in NumPy and SciPy, (x, y, z) order, one image."""
    params, averages = variables["params"], variables["batch_stats"]

    def block(x, name):
        own, mean = params[f"blocks_{name}"], averages[f"blocks_{name}"]["normalise"]
        channels = [
            sum(
                ndimage.correlate(x[..., i], own["kernel"][..., i, o], mode="constant")
                for i in range(x.shape[-1])
            )
            for o in range(own["kernel"].shape[-1])
        ]
        x = np.maximum(np.stack(channels, -1) + own["bias"], 0)
        scaled = (x - mean["mean"]) / np.sqrt(mean["var"] + 1e-5)
        return scaled * own["normalise"]["scale"] + own["normalise"]["bias"]

    x, skips = image[..., None].astype(np.float64), []
    for level in range(depth):
        x = block(block(x, f"down{level}_conv0"), f"down{level}_conv1")
        if level < depth - 1:
            skips.append(x)
            corners = [x[i::2, j::2, k::2] for i, j, k in np.ndindex(2, 2, 2)]
            x = np.max(corners, axis=0)
    for level in reversed(range(depth - 1)):
        for axis in range(3):
            x = np.repeat(x, 2, axis)
        x = np.concatenate([x, skips[level]], -1)
        x = block(block(x, f"up{level}_conv0"), f"up{level}_conv1")
    return (x @ params["head"]["kernel"] + params["head"]["bias"])[..., 0]


def test_logits_are_those_of_the_published_network():
    model = UNet3D(features=2, depth=3)
    variables = initialise(model)
    found = apply(model, variables, IMAGE, train=False, dropout=False)
    expected = reference_logits(
        jax.tree.map(np.asarray, variables), np.asarray(IMAGE)[0, ..., 0], depth=3
    )
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "patch"),
    [("batch", (16, 8, 4)), ("group", (8, 8, 8)), ("none", (4, 12, 20))],
)
def test_logits_have_the_shape_of_the_patch(norm, patch):
    features = 8 if norm == "group" else 4
    model = UNet3D(features=features, depth=3, norm=norm)
    image = jnp.ones((2, *patch, 1))
    logits = apply(model, initialise(model, image), image, train=False, dropout=False)
    assert logits.shape == (2, *patch)
    assert logits.dtype == jnp.float32


def test_patch_that_cannot_be_halved_is_one_clear_error():
    with pytest.raises(InputError, match="multiple of 4"):
        initialise(UNet3D(**SMALL), jnp.ones((1, 16, 8, 6, 1)))


@pytest.mark.parametrize("placement", ["all", "bottleneck"])
@pytest.mark.parametrize("kind", ["spatial", "element"])
def test_dropout_is_a_function_of_its_key(placement, kind):
    fields = {**SMALL, "depth": 2}
    model = UNet3D(**fields, dropout_placement=placement, dropout_kind=kind)
    variables = initialise(model)

    def sample(seed):
        return apply(model, variables, IMAGE, seed, train=False, dropout=True)

    plain = apply(model, variables, IMAGE, train=False, dropout=False)
    np.testing.assert_array_equal(sample(1), sample(1))
    assert not np.array_equal(sample(1), sample(2))
    assert not np.array_equal(sample(1), plain)


def test_monte_carlo_leaves_batch_statistics_alone():
    model = UNet3D(**SMALL)
    variables = initialise(model)
    _, updated = apply(
        model, variables, IMAGE, train=False, dropout=True, mutable="batch_stats"
    )
    same = jax.tree.map(
        np.array_equal, updated["batch_stats"], variables["batch_stats"]
    )
    assert all(jax.tree.leaves(same))


def test_training_moves_batch_statistics():
    model = UNet3D(**SMALL)
    variables = initialise(model)
    _, updated = apply(
        model, variables, IMAGE, train=True, dropout=False, mutable="batch_stats"
    )
    before = variables["batch_stats"]["blocks_down0_conv0"]["normalise"]["mean"]
    after = updated["batch_stats"]["blocks_down0_conv0"]["normalise"]["mean"]
    assert not np.array_equal(before, after)


def outputs(model, variables, image, **keywords):
    """Output of every block of one pass."""
    _, seen = apply(
        model, variables, image, seed=3, train=False, **keywords,
        capture_intermediates=True, mutable="intermediates",
    )  # fmt: skip
    return {
        name.removeprefix("blocks_"): np.asarray(block["__call__"][0])
        for name, block in seen["intermediates"].items()
        if name.startswith("blocks_")
    }


def test_spatial_dropout_drops_whole_channels_and_rescales():
    model = UNet3D(features=32, depth=2, dropout_rate=0.25, norm="none")
    variables = initialise(model)
    off, on = (
        outputs(model, variables, IMAGE, dropout=dropout)["down0_conv0"]
        for dropout in (False, True)
    )
    alive, kept = (one.any(axis=(1, 2, 3)) for one in (off, on))
    assert 0 < kept.sum() < alive.sum()
    expected = np.where(kept[:, None, None, None, :], off / 0.75, 0)
    np.testing.assert_allclose(on, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("placement", "dropping"),
    [
        ("bottleneck", {"down2_conv0", "down2_conv1"}),
        (
            "all",
            {f"down{level}_conv{i}" for level in range(3) for i in (0, 1)}
            | {f"up{level}_conv{i}" for level in range(2) for i in (0, 1)},
        ),
    ],
)
def test_where_dropout_is_placed(placement, dropping):
    """Blocks whose outputs a pass with dropout leaves with whole channels of zeros."""
    model = UNet3D(8, 3, norm="none", dropout_placement=placement, dropout_rate=0.5)
    variables = initialise(model)
    # A ReLU may leave a channel empty too, but not where nothing is negative.
    variables = jax.tree.map(lambda leaf: jnp.abs(leaf) + 0.01, variables)
    found = outputs(model, variables, jnp.abs(IMAGE), dropout=True)
    dropped = {name: ~out.any(axis=(1, 2, 3)) for name, out in found.items()}
    assert {name for name, channels in dropped.items() if channels.any()} == dropping


@pytest.mark.parametrize("kind", ["spatial", "element", "fixed"])
def test_rate_zero_drops_nothing_and_needs_no_key(kind):
    model = UNet3D(**{**SMALL, "dropout_kind": kind, "dropout_rate": 0.0})
    variables = initialise(model)
    off, on = (
        model.apply(variables, IMAGE, train=False, dropout=dropout)
        for dropout in (False, True)
    )
    np.testing.assert_array_equal(on, off)


def test_bfloat16_computes_near_float32():
    variables = initialise(UNet3D(**SMALL))
    full, half = (
        apply(
            UNet3D(**SMALL, dtype=dtype), variables, IMAGE, train=False, dropout=False
        )
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert half.dtype == jnp.float32
    assert 0 < np.abs(full - half).max() < 0.1 * np.abs(full).max()


def test_compiled_gradient_is_the_slope_of_the_loss():
    """Along a random direction of every parameter array, by central differences."""
    model = UNet3D(features=2, depth=2, dropout_rate=0.3)
    x = jax.random.normal(jax.random.key(0), (1, 8, 8, 4, 1))
    variables = initialise(model, x)

    def loss(params):
        logits, _ = model.apply(
            {**variables, "params": params}, x, train=True, dropout=True,
            rngs={"dropout": jax.random.key(2)}, mutable=["batch_stats"],
        )  # fmt: skip
        return jnp.mean(jax.nn.softplus(logits * jnp.sign(x[..., 0])))

    leaves, tree = jax.tree_util.tree_flatten_with_path(variables["params"])
    gradients = jax.tree.leaves(jax.jit(jax.grad(loss))(variables["params"]))
    along = jax.jit(lambda arrays: loss(jax.tree.unflatten(tree, arrays)))
    rng, step = np.random.default_rng(0), 1e-3
    arrays = [leaf for _, leaf in leaves]
    for i, (path, leaf) in enumerate(leaves):
        direction = rng.standard_normal(leaf.shape).astype(np.float32)
        ends = []
        for sign in (1, -1):
            moved = [*arrays[:i], leaf + sign * step * direction, *arrays[i + 1 :]]
            ends.append(float(along(moved)))
        slope = (ends[0] - ends[1]) / (2 * step)
        assert np.sum(gradients[i] * direction) == pytest.approx(
            slope, rel=0.2, abs=1e-3
        ), jax.tree_util.keystr(path)


def factors(key, kind="spatial", rate=0.3, items=4):
    return channel_factors(key, CHANNELS, kind=kind, rate=rate, items=items)


@pytest.mark.parametrize("kind", ["spatial", "fixed"])
def test_masks_are_a_function_of_their_key(kind):
    plain, jitted = factors(KEY, kind), jax.jit(lambda key: factors(key, kind))(KEY)
    assert [one.shape for one in plain] == [(4, c) for c in CHANNELS]
    for one, other in zip(plain, jitted, strict=True):
        np.testing.assert_array_equal(one, other)
    others = factors(jax.random.key(1), kind)
    assert any(np.any(a != b) for a, b in zip(plain, others, strict=True))
    # Items, and convolutions of one width, draw masks of their own.
    assert len(np.unique(plain[0], axis=0)) > 1
    assert np.any(plain[0] != plain[2])


def test_spatial_dropout_is_bernoulli():
    """Rate and variance of the number kept: 20 channels, 4000 draws."""
    keys = jax.random.split(KEY, 1000)
    drawn = np.concatenate(jax.vmap(lambda key: factors(key)[0])(keys))
    assert set(np.unique(drawn)) == {np.float32(0), np.float32(1 / 0.7)}
    kept = (drawn > 0).sum(axis=1)
    # Standard errors of 4000 draws: 2.05 / sqrt(4000), 4.2 * sqrt(2 / 4000).
    assert kept.mean() == pytest.approx(14, abs=4 * 0.033)
    assert kept.var() == pytest.approx(4.2, abs=4 * 0.1)
    # Two channels are dropped together as often as chance has it.
    both = np.mean((drawn[:, 0] == 0) & (drawn[:, 1] == 0))
    assert both == pytest.approx(0.09, abs=4 * np.sqrt(0.09 * 0.91 / 4000))


def test_fixed_dropout_drops_the_same_number_every_time():
    keys = jax.random.split(KEY, 50)
    drawn = np.concatenate(jax.vmap(lambda key: factors(key, "fixed")[0])(keys))
    assert set(np.unique(drawn)) == {np.float32(0), np.float32(20 / 14)}
    kept = drawn > 0
    assert set(kept.sum(axis=1)) == {14}
    # 200 draws of each channel, 140 kept on average, standard deviation 6.5.
    assert np.abs(kept.sum(axis=0) - 140).max() < 26


@pytest.mark.parametrize("kind", ["spatial", "fixed"])
def test_rates_of_nothing_and_everything(kind):
    for rate, value in ((0.0, 1.0), (1.0, 0.0)):
        for one in factors(KEY, kind, rate):
            np.testing.assert_array_equal(one, value)


def test_channels_are_scaled_in_the_type_of_the_activations():
    x = jnp.ones((2, 3, 4, 5, 2), jnp.bfloat16)
    found = scale_channels(x, jnp.array([[0.0, 2.0], [2.0, 0.0]]))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found[0, 1, 2, 3], [0, 2])
    np.testing.assert_array_equal(found[1, 1, 2, 3], [2, 0])


def test_element_dropout_is_that_of_flax():
    """Mean and variance of what is left, against flax.linen.Dropout."""
    x = jnp.ones((2, 8, 16, 16, 8))
    found = drop_elements(x, KEY, rate=0.25)
    flax = nn.Dropout(0.25).apply(
        {}, x, deterministic=False, rngs={"dropout": jax.random.key(1)}
    )
    np.testing.assert_array_equal(np.unique(found), np.unique(flax))
    # 32768 elements of standard deviation 0.58: 0.0032 of the mean.
    assert np.mean(found) == pytest.approx(1, abs=4 * 0.0032)
    assert np.any(found[0] != found[1])
