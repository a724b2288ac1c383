"""A thinned network is the masked network, sample by sample."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.segmentation.unet import UNet3D
from unc_jax.uncertainty import sampling, thinning

PATCH = (8, 12, 4)
WINDOWS = jax.random.normal(jax.random.key(2), (2, *PATCH, 1))


def drawn_variables(model, seed=0):
    """Weights and running averages that are all far from their initial 0 and 1."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        scale = 1 / np.sqrt(np.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 0.5
        values = rng.standard_normal(leaf.shape).astype(leaf.dtype) * scale
        return np.abs(values) + 0.5 if path[-1].key == "var" else values

    init = functools.partial(model.init, train=False, dropout=False)
    shapes = jax.eval_shape(init, jax.random.key(0), WINDOWS)
    return jax.tree_util.tree_map_with_path(draw, shapes)


def masks_of(model, variables, key):
    return model.apply(variables, rngs={"dropout": key}, method="dropout_masks")


@pytest.mark.parametrize("kind", ["spatial", "fixed"])
@pytest.mark.parametrize(("norm", "depth"), [("batch", 3), ("none", 2), ("batch", 1)])
def test_thinned_is_masked(kind, norm, depth):
    model = UNet3D(8, depth, norm=norm, dropout_kind=kind, dropout_rate=0.5)
    variables = drawn_variables(model)
    key = jax.random.key(5)
    one_mask = model.clone(one_mask=True)
    masked = jax.jit(
        lambda key: one_mask.apply(
            variables, WINDOWS, train=False, dropout=True, rngs={"dropout": key}
        )
    )(key)
    masks = masks_of(model, variables, key)
    # As narrow as these masks allow: every row and column must be the right one.
    widths = {name: int(np.count_nonzero(mask)) for name, mask in masks.items()}
    assert widths != thinning.full_widths(model)
    kept = thinning.kept_channels(masks, widths)
    assert kept is not None
    network = thinning.thin(variables, masks, kept)
    for name, block in network.blocks.items():
        assert block.kernel.shape[-1] == widths[name]
    apply = jax.jit(lambda network: thinning.apply_thin(network, WINDOWS, jnp.float32))
    np.testing.assert_allclose(apply(network), masked, atol=2e-4)
    # Wider than needed: what fills up adds nothing.
    all_ = thinning.kept_channels(masks, thinning.full_widths(model))
    wide = thinning.thin(variables, masks, all_)
    np.testing.assert_allclose(apply(wide), masked, atol=2e-4)


def test_masks_of_the_model_are_those_of_its_pass():
    """The first block's mask, read from where its activations vanish."""
    model = UNet3D(16, 2, norm="none", dropout_rate=0.5)
    variables = drawn_variables(model)
    key = jax.random.key(1)
    _, seen = model.apply(
        variables,
        WINDOWS[:1],
        train=False,
        dropout=True,
        rngs={"dropout": key},
        capture_intermediates=lambda module, method: method == "regularise",
        mutable="intermediates",
    )
    masks = masks_of(model, variables, key)
    for name, mask in masks.items():
        after = seen["intermediates"][f"blocks_{name}"]["regularise"][0]
        alive = np.asarray(after).any(axis=(0, 1, 2, 3))
        assert not alive[np.asarray(mask) == 0].any()
        assert set(np.unique(mask)) == {0.0, 2.0}


@pytest.mark.parametrize(
    ("channels", "rate", "kind", "width"),
    [
        (32, 0.5, "spatial", 24),  # 16 + 2 sd of 2.8 = 21.7
        (64, 0.5, "spatial", 40),  # 32 + 2 sd of 4 = 40
        (32, 0.5, "fixed", 16),
        (32, 0.1, "spatial", 32),  # 28.8 + 3.4
        (256, 0.1, "spatial", 240),  # 230.4 + 2 sd of 4.8 = 240
        (4, 0.5, "fixed", 4),  # never more than there are
        (8, 0.95, "fixed", 8),  # nor none
    ],
)
def test_widths(channels, rate, kind, width):
    model = UNet3D(channels, 1, dropout_rate=rate, dropout_kind=kind)
    assert thinning.thin_widths(model)["down0_conv0"] == width


@pytest.mark.parametrize(
    ("fields", "thins"),
    [
        ({}, True),
        ({"dropout_kind": "element"}, False),
        ({"dropout_placement": "bottleneck"}, False),
        ({"norm": "group"}, False),
        ({"dropout_rate": 0.0}, False),
    ],
)
def test_what_can_be_thinned(fields, thins):
    assert thinning.can_thin(UNet3D(**fields)) == thins


def test_share_of_work_by_hand():
    """Two levels of 16: 8 of every 16 channels are kept, and all of the image's one."""
    model = UNet3D(16, 2, dropout_rate=0.5, dropout_kind="fixed")
    # down0: 1 -> 16 -> 32; down1, an eighth of the voxels: 32 -> 32 -> 64; up0, of 64
    # and the skip's 32: 96 -> 32 -> 16.
    full = 16 + 16 * 32 + (32 * 32 + 32 * 64) / 8 + 96 * 32 + 32 * 16
    thin = 8 + 8 * 16 + (16 * 16 + 16 * 32) / 8 + 48 * 16 + 16 * 8
    assert thinning.share_of_work(model) == pytest.approx(thin / full)


def mixed_key(model, variables, samples):
    """A key of whose samples some fit the widths and some, rarely, exceed them."""
    widths = thinning.thin_widths(model)
    draw = jax.jit(functools.partial(masks_of, model, variables))
    for seed in range(200):
        key = jax.random.key(seed)
        masks = [draw(jax.random.fold_in(key, i)) for i in range(samples)]
        if len({thinning.kept_channels(one, widths) is None for one in masks}) == 2:
            return key
    raise AssertionError("no such key")


@pytest.mark.parametrize("chunk", [1, 2])
def test_prediction_does_not_depend_on_thinning(chunk, monkeypatch):
    model = UNet3D(16, 2, dropout_rate=0.5)
    variables = drawn_variables(model)
    volume = np.random.default_rng(0).standard_normal((16, 12, 6)).astype(np.float32)
    settings = {
        "samples": 3,
        "patch_shape": PATCH,
        "overlap": 0.25,
        "mask_scope": "volume",
        "window_batch": 3,
        "chunk": chunk,
    }
    key = mixed_key(model, variables, 3)
    thinned = []
    apply_thin = thinning.apply_thin
    monkeypatch.setattr(
        thinning, "apply_thin", lambda *a: thinned.append(1) or apply_thin(*a)
    )
    found = sampling.build_monte_carlo(model, **settings)(variables, volume, key)
    assert thinned
    monkeypatch.setattr(thinning, "can_thin", lambda model: False)
    expected = sampling.build_monte_carlo(model, **settings)(variables, volume, key)
    for name in ("mean", "uncertainty"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), atol=2e-4
        )
    np.testing.assert_allclose(found.volumes, expected.volumes, atol=2)
