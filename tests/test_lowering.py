"""What is asked of the compilers of other platforms, without any of their devices.

A form of the convolution that is meant for one platform must not reach another: there
it would be slow, and nobody would see why.
"""

import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from configs import base
from unc_jax.segmentation.feed import repeat
from unc_jax.segmentation.models import multiplies_bfloat16
from unc_jax.segmentation.train import build_train_step, state_shapes, variables_of
from unc_jax.segmentation.unet import UNet3D
from unc_jax.uncertainty.sampling import sample_windows

DEPTH, PATCH, BATCH = 3, (16, 16, 8), 2
JOINED = DEPTH - 1  # blocks of an upsampled volume and a skip
BLOCKS = 2 * DEPTH + 2 * JOINED


class Operations(NamedTuple):
    """Numbers of operations in a program."""

    plane_convolutions: int
    volume_convolutions: int
    transposes: int
    custom_calls: int


@pytest.fixture(scope="module")
def traced():
    """The training step and ten samples of a small network, by their names."""
    config = base.get_config()
    config.model.features, config.model.depth = 4, DEPTH
    config.train.patch_shape, config.train.batch = PATCH, BATCH
    model = UNet3D(4, DEPTH, dtype=jnp.bfloat16)
    state = state_shapes(config, model)
    data = [jax.ShapeDtypeStruct((BATCH, *PATCH), t) for t in (jnp.float32, jnp.uint8)]
    train_step = build_train_step(config, model)
    steps = repeat(train_step, lambda state, data, i: data, 2, scanned=True)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 10))

    @jax.jit
    def samples(variables, windows, places, keys):
        how = {"mask_scope": "volume", "chunk": 10}
        return sample_windows(model, variables, windows, places, keys, **how)

    window = jax.ShapeDtypeStruct((1, *PATCH, 1), jnp.float32)
    place = jax.ShapeDtypeStruct((1,), jnp.int32)
    return {
        "training": steps.trace(state, tuple(data)),
        "samples": samples.trace(variables_of(state), window, place, keys),
    }


def lowered(traced, platform) -> Operations:
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    axes = re.findall(r"stablehlo\.convolution\(.*?dim_numbers = \[(.*?)\]", text)
    spatial = [len(one.split(",")) - 2 for one in axes]
    return Operations(
        spatial.count(2),
        spatial.count(3),
        text.count("stablehlo.transpose"),
        text.count("stablehlo.custom_call"),
    )


@pytest.mark.parametrize("platform", ["rocm", "tpu"])
def test_other_platforms_get_a_plain_convolution_per_block(traced, platform):
    """Of each block three in a training: the first needs no gradient by its input.

    The kernel of each is turned, and the volume on the way in and out.
    """
    found = lowered(traced["training"], platform)
    assert found == Operations(0, 3 * BLOCKS - 1, 4 * BLOCKS + 2, 0)
    assert lowered(traced["samples"], platform) == Operations(0, BLOCKS, BLOCKS + 2, 0)


def test_cuda_convolves_the_small_volume_and_the_skip_apart(traced):
    found = lowered(traced["training"], "cuda")
    convolutions = 3 * (BLOCKS + JOINED) - 1
    assert found == Operations(0, convolutions, 4 * BLOCKS + 2 + 8 * JOINED, 0)
    found = lowered(traced["samples"], "cuda")
    assert found == Operations(0, BLOCKS + JOINED, BLOCKS + 2 + 2 * JOINED, 0)


def test_a_cpu_gets_convolutions_of_planes_alone(traced):
    for program in traced.values():
        found = lowered(program, "cpu")
        assert found.plane_convolutions >= BLOCKS
        assert found.volume_convolutions == found.custom_calls == 0


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        *[("7.5", False), ("8.0", True), ("9.0", True), ("10.0", True), ("12.1", True)],
        *[("gfx90a", True), ("gfx942", True), ("gfx1030", False), ("", False)],
    ],
)
def test_bfloat16_by_what_a_card_calls_itself(capability, expected):
    assert multiplies_bfloat16(capability) is expected
