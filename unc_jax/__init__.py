"""Monte Carlo dropout 3D U-Nets for liver and tumour CT, with uncertainty measures.

The packages are the steps of the pipeline: `data` (scans to one array), `segmentation`
(network, losses, training), `uncertainty` (Monte Carlo sampling and measures), `study`
(does uncertainty predict segmentation quality?), `review` (cases that a human should
review). docs/python.md shows the functions of this module.

Axes: volumes are (x, y, z) in RAS+ order, batches on the device (b, x, y, z, c), stacks
of Monte Carlo samples (n, x, y, z). Names state their units: spacing_mm, window_hu.
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
    if name == "score":  # the module of the command, which is callable
        return importlib.import_module("unc_jax.score")
    return getattr(importlib.import_module("unc_jax.api"), name)
