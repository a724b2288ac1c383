"""Python interface: segments an array with a run, and measures samples, in memory.

It gives the same numbers as the commands `predict` and `score` and writes no files.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from unc_jax.data.geometry import (
    Geometry,
    spans_volume,
    to_canonical,
    to_scan_order,
)
from unc_jax.errors import InputError
from unc_jax.review import channels, quality, segment_scan, verdict
from unc_jax.review.segment_scan import Segmentation, Segmenter
from unc_jax.study import run_folder
from unc_jax.uncertainty.host_samples import reduce_maps
from unc_jax.uncertainty.measures import measure_all


class Run(NamedTuple):
    """A trained run, ready to segment arrays; its folder is never written to."""

    segmenter: Segmenter
    # Added to the warnings of every scan, if the run's measures do not rank its cases.
    warnings: tuple[str, ...] = ()

    def segment(
        self, array: ArrayLike, affine: ArrayLike, *, organ: ArrayLike | None = None
    ) -> Segmentation:
        """Segments one scan and returns the results that `predict` writes.

        Args:
          array: voxels (x, y, z) in any axis order; for CT in Hounsfield units.
          affine: 4x4, voxel -> mm in RAS+ space, as in nibabel.
          organ: mask of the liver on the same grid, for a run that segments tumours.

        Returns:
          Maps on the grid of `array`, measures (NaN where undefined), predicted Dice
          with its lower bound, reasons to review the case, warnings.

        Raises:
          InputError: the scan or the affine cannot be used, or the organ is missing.
        """
        # Fortran order, as in a NIfTI file: rounding depends on the order in memory.
        voxels = np.asfortranarray(_numbers(array, "the scan"))
        if voxels.dtype.kind == "f":
            voxels = voxels.astype(np.float32)
        geometry = _geometry(voxels, affine)
        if organ is not None:
            organ = to_canonical(_mask(organ, voxels.shape), geometry)
        canonical = to_canonical(voxels, geometry)
        found = segment_scan.segment(canonical, geometry, self.segmenter, organ)
        mask, mean, uncertainty = (
            np.ascontiguousarray(to_scan_order(one, geometry))
            for one in (found.mask, found.mean, found.uncertainty)
        )
        return found._replace(
            mask=mask,
            mean=mean,
            uncertainty=uncertainty,
            warnings=(*found.warnings, *self.warnings),
            measures={
                name: math.nan if value is None else value
                for name, value in found.measures.items()
            },
        )

    def network(self) -> tuple[Any, dict[str, Any]]:
        """Returns the network, a flax.linen module, and its variables.

        The variables are those of the evaluated checkpoint; for an ensemble, of its
        first member.
        """
        return self.segmenter.predictor.model, self.segmenter.predictor.networks[0]


def load_run(path: str | Path, *, level: float = quality.LEVEL) -> Run:
    """Opens the folder of an evaluated run.

    level: of the lower bound, the least share of cases with a Dice above it. If the
    calibration cases support only a lower level, the highest supported one is used.

    Raises InputError for an incomplete or damaged folder, or a level out of range.
    """
    if not 0 < level < 1:
        raise InputError(f"the level is {level}, must lie in (0, 1)")
    opened = run_folder.open_run(Path(path))
    model = quality.of_run(opened)
    level = quality.supported_level(model, level)
    segmenter = segment_scan.build_segmenter(opened, quality=model, level=level)
    return Run(segmenter, verdict.warnings(verdict.of_run(opened.rows)))


def score(samples: ArrayLike) -> dict[str, float]:
    """Returns the uncertainty measures of samples from any tool, by their names.

    Args:
      samples: (n, x, y, z), n >= 2: masks (bool, or 0 and 1) or foreground
        probabilities. For masks `u_labelled` and `u_labelled_binary` are NaN, because
        they would always be 0.

    Returns:
      One number per entry of `unc_jax.uncertainty.measures.MEASURES`, as in the
      cases.csv of the command `score`; NaN where undefined.

    Raises:
      InputError: another shape, or values outside 0 ... 1.
    """
    samples = _numbers(samples, "samples")
    if samples.ndim != 4 or len(samples) < 2 or not samples.size:
        raise InputError(
            f"samples of shape {samples.shape}; (n, x, y, z) with n >= 2 is needed"
        )
    outcome = reduce_maps(_checked(sample) for sample in samples)
    channels.check_not_classes(outcome, "the samples")
    return measure_all(outcome)


def _checked(sample: np.ndarray) -> np.ndarray:
    # The comparison is false for NaN too.
    if not np.all((sample >= 0) & (sample <= 1)):
        raise InputError(
            "a sample has values outside 0 ... 1; give masks or probabilities"
        )
    return sample.astype(np.float32 if sample.dtype.kind == "f" else bool)


def _numbers(array: ArrayLike, what: str) -> np.ndarray:
    """Returns an array of NumPy's own numbers, bfloat16 and others of JAX as float32.

    Raises InputError, naming `what`, for anything but numbers and for masked arrays,
    whose masks would be lost.
    """
    try:
        found = np.asarray(array)
    except ValueError as error:  # lists of lists of different lengths
        raise InputError(f"{what}: no array ({error})") from None
    if found.dtype.kind not in "biuf" and jnp.issubdtype(found.dtype, jnp.floating):
        found = found.astype(np.float32)
    if found.dtype.kind not in "biuf" or isinstance(array, np.ma.MaskedArray):
        kind = "a masked array" if found.dtype.kind in "biuf" else str(found.dtype)
        raise InputError(f"{what}: {kind}; an array of numbers is needed")
    return found


def _mask(organ: ArrayLike, shape: tuple[int, ...]) -> np.ndarray:
    organ = _numbers(organ, "organ")
    if organ.shape != shape:
        raise InputError(
            f"organ has the shape {organ.shape}, the scan {shape}; they must be equal"
        )
    if not np.isin(organ, (0, 1)).all():
        raise InputError("organ: a mask is needed, bool or 0 and 1")
    return organ.astype(bool)


def _geometry(voxels: np.ndarray, affine: ArrayLike) -> Geometry:
    matrix = _numbers(affine, "the affine").astype(float)
    if voxels.ndim != 3 or matrix.shape != (4, 4):
        raise InputError(
            f"an array of shape {voxels.shape} and an affine of {matrix.shape}; "
            "(x, y, z) and (4, 4) are needed"
        )
    if not spans_volume(matrix):
        raise InputError(
            "the affine spans no volume, is not finite, or its last row is not 0 0 0 1"
        )
    x, y, z = voxels.shape
    return Geometry((x, y, z), matrix)
