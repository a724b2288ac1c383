"""Dropout: which channels go, how often, and what is left of the others."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.segmentation.dropout import channel_factors, drop_elements, scale_channels

KEY = jax.random.key(0)
CHANNELS = (20, 3, 20)


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
    found = drop_elements(x, KEY, rate=0.25, one_mask=False)
    flax = nn.Dropout(0.25).apply(
        {}, x, deterministic=False, rngs={"dropout": jax.random.key(1)}
    )
    np.testing.assert_array_equal(np.unique(found), np.unique(flax))
    # 32768 elements of standard deviation 0.58: 0.0032 of the mean.
    assert np.mean(found) == pytest.approx(1, abs=4 * 0.0032)
    assert np.any(found[0] != found[1])
    shared = drop_elements(x, KEY, rate=0.25, one_mask=True)
    np.testing.assert_array_equal(shared[0], shared[1])
