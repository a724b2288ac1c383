"""The transform in front of 2-D convolutions, and the slabs it is worked through in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.segmentation.convolution import conv3d, matrix_units, winograd

VOLUME = (3, 8, 6, 5, 4)  # b, z, x, y, c_in
PLANE, OUT = 6 * 5, 2
TRANSFORMS = {"F2": winograd.F2, "F4": winograd.F4}
# Voxels at once: a plane, two planes, a volume of F4's two tiles and F2's four, all.
SLABS = (1, 2 * PLANE, 4 * PLANE, 10**6)


@pytest.fixture
def arrays():
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = (VOLUME, (3, 3, 3, VOLUME[-1], OUT), (*VOLUME[:-1], OUT))
    return [jax.random.normal(*both) for both in zip(keys, shapes, strict=True)]


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_matrices_give_a_correlation(transform):
    """m outputs of three taps, in float64, to the last bits."""
    data, kernel, out = transform
    rng = np.random.default_rng(0)
    taps, inputs = rng.standard_normal(3), rng.standard_normal(len(data))
    expected = np.correlate(inputs, taps, mode="valid")
    found = out @ ((kernel @ taps) * (data @ inputs))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("voxels", SLABS)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_every_slab_size_gives_the_convolution(transform, voxels, arrays, monkeypatch):
    x, kernel, _ = arrays
    monkeypatch.setattr(winograd, "_VOXELS", voxels)
    found = winograd.convolve(x, kernel.transpose(2, 0, 1, 3, 4), transform)
    np.testing.assert_allclose(found, matrix_units.convolve(x, kernel), atol=1e-4)


@pytest.mark.parametrize("voxels", SLABS)
@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_every_slab_size_gives_the_gradient(transform, voxels, arrays, monkeypatch):
    x, _, gradient = arrays
    monkeypatch.setattr(winograd, "_GRADIENT_VOXELS", voxels)
    found = winograd.kernel_gradient(x, gradient, transform)
    expected = conv3d._kernel_gradient(matrix_units.convolve)(x, gradient).transpose(
        2, 0, 1, 3, 4
    )
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_the_transformed_volume_never_exists_as_a_whole():
    """Memory beside input and output stays below the six points of all tiles."""
    x = jax.ShapeDtypeStruct((1, 16, 256, 256, 8), jnp.float32)
    taps = jax.ShapeDtypeStruct((3, 3, 3, 8, 8), jnp.float32)
    program = jax.jit(lambda x, taps: winograd.convolve(x, taps, winograd.F4))
    analysis = program.lower(x, taps).compile().memory_analysis()
    points = 6 / 4 * np.prod(x.shape) * 4
    padded = 18 / 16 * np.prod(x.shape) * 4
    assert analysis.temp_size_in_bytes < padded + points


def test_planes_side_by_side_do_not_touch():
    planes = jnp.zeros((2, 4, 5, 1)).at[0, :, -1].set(1.0)  # beside the second plane
    found = winograd.conv2d(planes, jnp.ones((3, 3, 1, 1)))
    assert found[0].sum() > 0
    assert found[1].sum() == 0


@pytest.mark.parametrize(
    ("count", "voxels", "together", "expected"),
    [(12, 10, 45, 4), (12, 10, 50, 4), (7, 10, 60, 1), (6, 10, 1, 1), (6, 10, 999, 6)],
)
def test_largest_share_divides_the_number(count, voxels, together, expected):
    assert winograd.largest_share(count, voxels, together) == expected
