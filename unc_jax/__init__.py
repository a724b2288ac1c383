"""Monte Carlo dropout 3D U-Nets for liver and tumour CT, and measures of trust in them.

The packages, one per step of the pipeline: `data` (scans to one array), `segmentation`
(network, losses, training), `uncertainty` (the Monte Carlo call and its measures),
`study` (does uncertainty tell good from bad segmentations?), `review` (cases that a
human should see). docs/python.md shows the functions of this module.

Axes: volumes are (x, y, z) in RAS+ order; batches on the device (b, x, y, z, c);
Monte Carlo samples lead: (n, x, y, z). Units stand in names: spacing_mm, window_hu.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unc_jax.api import Run, Segmentation, load_run, score

__version__ = "0.1.0"
__all__ = ["Run", "Segmentation", "__version__", "load_run", "score"]


def __getattr__(name: str) -> Any:
    """Imports the Python interface, and JAX with it, when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module 'unc_jax' has no attribute {name!r}")
    if name == "score":  # the command's module, which can be called
        return importlib.import_module("unc_jax.score")
    return getattr(importlib.import_module("unc_jax.api"), name)
