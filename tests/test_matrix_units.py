"""Forms for GPUs: the function of XLA's own convolution, computed on any device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.segmentation.convolution import conv3d, matrix_units, upsampled

SHAPES = {"plain": (2, 4, 6, 5), "one voxel": (1, 1, 1, 1), "flat": (1, 1, 7, 2)}
pytestmark = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def draw(index, *shape):
    return jax.random.normal(jax.random.fold_in(jax.random.key(0), index), shape)


def same(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-4)


def same_with_gradients(form, plain, *arrays):
    cotangent = draw(9, *jax.eval_shape(plain, *arrays).shape)

    def with_gradients(function, *arrays):
        result, pullback = jax.vjp(function, *arrays)
        return result, pullback(cotangent)

    compiled = jax.jit(with_gradients, static_argnums=0)
    found, expected = compiled(form, *arrays), compiled(plain, *arrays)
    jax.tree.map(same, found, expected)


def test_upsampled_volume_is_convolved_from_the_small_one(shape):
    def plain(low, kernel):
        return matrix_units.convolve(upsampled.upsample(low), kernel)

    arrays = draw(0, *shape, 3), draw(1, 3, 3, 3, 3, 4)
    same_with_gradients(matrix_units.convolve_upsampled, plain, *arrays)


def test_volume_joined_with_a_skip(shape):
    b, z, x, y = shape
    low, skip = draw(0, b, z, x, y, 3), draw(1, b, 2 * z, 2 * x, 2 * y, 2)
    kernel = draw(2, 3, 3, 3, 5, 4)
    same_with_gradients(upsampled._joined_cuda, upsampled._joined, low, skip, kernel)


def test_image_with_its_neighbours_as_channels(shape):
    arrays = draw(0, *shape, 1), draw(1, 3, 3, 3, 1, 4)
    same_with_gradients(matrix_units.convolve_image, matrix_units.convolve, *arrays)


@pytest.mark.parametrize("channels", [1, 3])
def test_kernel_gradient_of_the_form_chosen_by_channels(shape, channels):
    x, gradient = draw(0, *shape, channels), draw(1, *shape, 4)
    found = conv3d._kernel_gradient(conv3d._forward_cuda)(x, gradient)
    _, pullback = jax.vjp(
        lambda kernel: matrix_units.convolve(x, kernel),
        jnp.zeros((3, 3, 3, channels, 4)),
    )
    same(found, pullback(gradient)[0])


def test_half_precision_rounds_once(shape):
    arrays = draw(0, *shape, 3), draw(1, 3, 3, 3, 3, 4)
    exact = matrix_units.convolve(upsampled.upsample(arrays[0]), arrays[1])
    half = (one.astype(jnp.bfloat16) for one in arrays)
    found = matrix_units.convolve_upsampled(*half)
    assert found.dtype == jnp.bfloat16
    error = np.linalg.norm(found.astype(jnp.float32) - exact)
    assert error < 0.01 * np.linalg.norm(exact)
