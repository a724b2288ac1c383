"""The convolution is the same function on every platform, with exact gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.segmentation.convolution import conv3d as module
from unc_jax.segmentation.convolution import matrix_units
from unc_jax.segmentation.convolution.conv3d import conv3d

# (b, z, x, y, c_in, c_out): every formulation, odd sizes and thin axes among them.
SHAPES = {
    "winograd4": (2, 8, 34, 38, 10, 12),
    "winograd2": (1, 6, 56, 52, 12, 12),
    "odd depth": (1, 5, 58, 62, 12, 12),
    "one plane": (2, 1, 92, 92, 12, 12),
    "one channel": (2, 4, 96, 92, 1, 32),
    "two planes": (1, 2, 92, 92, 16, 8),
    "small": (2, 4, 5, 7, 5, 6),
    "small, one channel": (1, 3, 4, 6, 1, 2),
}


def draw(shape):
    b, z, x, y, c_in, c_out = shape
    rng = np.random.default_rng(0)
    array = rng.standard_normal((b, z, x, y, c_in))
    kernel = rng.standard_normal((3, 3, 3, c_in, c_out))
    gradient = rng.standard_normal((b, z, x, y, c_out))
    return array, kernel, gradient


def reference(array, kernel):
    """float64, from its definition, one tap at a time."""
    taps = kernel.transpose(2, 0, 1, 3, 4)
    padded = np.pad(array, [(0, 0), *[(1, 1)] * 3, (0, 0)])
    z, x, y = array.shape[1:4]
    return sum(
        padded[:, i : i + z, j : j + x, k : k + y] @ taps[i, j, k]
        for i, j, k in np.ndindex(3, 3, 3)
    )


@pytest.mark.parametrize(("name", "shape"), SHAPES.items(), ids=SHAPES)
def test_shapes_reach_the_forms_they_name(name, shape):
    array, _, gradient = draw(shape)
    assert module.is_small(array, gradient.shape[-1]) == name.startswith("small")


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_forward_matches_float64(shape):
    array, kernel, _ = draw(shape)
    expected = reference(array, kernel)
    result = jax.jit(conv3d)(jnp.float32(array), jnp.float32(kernel))
    assert np.abs(result - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_gradients_match_float64(shape):
    array, kernel, gradient = draw(shape)
    pullback = jax.jit(lambda array, kernel, g: jax.vjp(conv3d, array, kernel)[1](g))
    by_input, by_kernel = pullback(*map(jnp.float32, (array, kernel, gradient)))
    # The adjoint: <conv(x, k), g> is linear in x and in k.
    for unit, found, of in (
        (array, by_input, lambda a: reference(a, kernel)),
        (kernel, by_kernel, lambda k: reference(array, k)),
    ):
        rng = np.random.default_rng(1)
        direction = rng.standard_normal(unit.shape)
        expected = np.sum(of(direction) * gradient)
        scale = np.abs(of(direction) * gradient).sum()
        assert abs(np.sum(found * direction) - expected) < 1e-5 * scale


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_cpu_form_matches_xla_form(shape):
    """A model moves between platforms within this tolerance."""
    array, kernel, gradient = (jnp.float32(a) for a in draw(shape))
    for cpu, xla, arrays in (
        (module._forward_cpu, matrix_units.convolve, (array, kernel)),
        (
            module._kernel_gradient_cpu,
            module._kernel_gradient(matrix_units.convolve),
            (array, gradient),
        ),
    ):
        found, expected = cpu(*arrays), xla(*arrays)
        assert jnp.abs(found - expected).max() < 1e-5 * jnp.abs(expected).max()


def test_vmap_equals_loop():
    arrays = jax.random.normal(jax.random.key(0), (3, 1, 4, 6, 6, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4, 2))
    mapped = jax.vmap(conv3d, in_axes=(0, None))(arrays, kernel)
    looped = jnp.stack([conv3d(array, kernel) for array in arrays])
    np.testing.assert_allclose(mapped, looped, atol=1e-5)
