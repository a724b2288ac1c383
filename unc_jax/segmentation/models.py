"""The table of the networks, and the one that a configuration names."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unc_jax.config import Config
from unc_jax.segmentation.unet import UNet3D

# By config.model.name: a function of the other fields of config.model, and of `dtype`
# in place of compute_dtype, that returns a flax module. Its apply(variables, x, train=,
# dropout=, rngs={"dropout": key}) gives foreground logits (b, x, y, z) of images
# (b, x, y, z, 1), as UNet3D.__call__ says; axes are multiples of 2**(depth - 1).
MODELS: dict[str, Callable[..., nn.Module]] = {"unet3d": UNet3D}


def build_model(config: Config) -> Any:
    """Builds the network of `config.model`."""
    fields = dict(config.model)
    build, dtype = MODELS[fields.pop("name")], fields.pop("compute_dtype")
    return build(dtype=compute_dtype(dtype), **fields)


def compute_dtype(name: str) -> Any:
    """Returns the dtype named; "auto" is bfloat16 where matrix units have it, else
    float32."""
    if name != "auto":
        return jnp.dtype(name)
    device = jax.devices()[0]
    if device.platform == "tpu":
        return jnp.dtype("bfloat16")
    capability = getattr(device, "compute_capability", "0")
    return jnp.dtype("bfloat16" if float(capability) >= 8 else "float32")
