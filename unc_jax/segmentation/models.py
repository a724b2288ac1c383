"""Networks that a configuration can name: the table MODELS."""

import re
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
    capability = getattr(device, "compute_capability", "")
    half = device.platform == "tpu" or multiplies_bfloat16(capability)
    return jnp.dtype("bfloat16" if half else "float32")


def multiplies_bfloat16(capability: str) -> bool:
    """Tells whether a GPU's matrix units do: NVIDIA's from 8.0 on, AMD's CDNA.

    capability: as JAX has it, a number of NVIDIA's, a name of AMD's: "9.0", "gfx90a".
    Of AMD's all gfx9 that ROCm still supports are CDNA; "" is no GPU.
    """
    number = re.fullmatch(r"\d+(\.\d+)?", capability)
    return float(capability) >= 8 if number else capability.startswith("gfx9")
