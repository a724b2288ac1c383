"""Networks that a configuration can name: the table MODELS."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unc_jax.config import Config
from unc_jax.segmentation.unet import UNet3D

# By config.model.name. An entry is a function that returns a flax module; its keyword
# arguments are the other fields of config.model, with `dtype` in place of
# compute_dtype, and it may ignore those it does not need. The module's __call__ has the
# arguments of UNet3D.__call__: from images (b, x, y, z, 1), whose axes are multiples of
# 2**(depth - 1), to foreground logits (b, x, y, z) float32.
MODELS: dict[str, Callable[..., nn.Module]] = {"unet3d": UNet3D}


def build_model(config: Config) -> Any:
    """Builds the network of `config.model`."""
    fields = dict(config.model)
    build, dtype = MODELS[fields.pop("name")], fields.pop("compute_dtype")
    return build(dtype=compute_dtype(dtype), **fields)


def compute_dtype(name: str) -> Any:
    """Returns the dtype of that name.

    "auto" is bfloat16 on devices whose matrix units compute in it, else float32.
    """
    if name != "auto":
        return jnp.dtype(name)
    device = jax.devices()[0]
    if device.platform == "tpu":
        return jnp.dtype("bfloat16")
    capability = getattr(device, "compute_capability", "0")
    return jnp.dtype("bfloat16" if float(capability) >= 8 else "float32")
