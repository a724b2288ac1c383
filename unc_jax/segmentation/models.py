"""Networks that a configuration can name: the table MODELS."""

import re
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from unc_jax.config import Config
from unc_jax.segmentation.unet import UNet3D

# Keys are values of config.model.name. An entry is a function that returns a flax
# module; its keyword arguments are the other fields of config.model, with `dtype` in
# place of compute_dtype, and it may ignore some of them. The module's __call__ has the
# arguments of UNet3D.__call__ and maps images (b, x, y, z, 1), whose axes are multiples
# of 2**(depth - 1), to foreground logits (b, x, y, z) float32.
MODELS: dict[str, Callable[..., nn.Module]] = {"unet3d": UNet3D}


def build_model(config: Config) -> Any:
    """Builds the network of `config.model`."""
    fields = dict(config.model)
    build, dtype = MODELS[fields.pop("name")], fields.pop("compute_dtype")
    return build(dtype=compute_dtype(dtype), **fields)


def compute_dtype(name: str) -> Any:
    """Returns the dtype that `model.compute_dtype` names.

    "auto" is bfloat16 on devices whose matrix units support it, else float32.
    """
    if name != "auto":
        return jnp.dtype(name)
    device = jax.devices()[0]
    capability = getattr(device, "compute_capability", "")
    half = device.platform == "tpu" or multiplies_bfloat16(capability)
    return jnp.dtype("bfloat16" if half else "float32")


def precision_of(config: Config) -> str:
    """Returns the name of the dtype that the network of a config computes in here."""
    return jnp.dtype(compute_dtype(config.model.compute_dtype)).name


def multiplies_bfloat16(capability: str) -> bool:
    """Tells whether a GPU's matrix units support bfloat16.

    True for NVIDIA from compute capability 8.0 and for AMD CDNA. capability: as JAX
    reports it, a number for NVIDIA ("9.0"), a name for AMD ("gfx90a"); "" for other
    devices. All gfx9 GPUs that ROCm still supports are CDNA.
    """
    number = re.fullmatch(r"\d+(\.\d+)?", capability)
    return float(capability) >= 8 if number else capability.startswith("gfx9")
