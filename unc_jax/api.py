"""Python interface: a run on an array, and measures of samples, all in memory.

The numbers are those of the commands `predict` and `score`; no file is written.
"""

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from unc_jax.data.geometry import Geometry, to_canonical, to_scan_order
from unc_jax.errors import InputError
from unc_jax.review import quality, segment_scan, verdict
from unc_jax.review.segment_scan import Segmentation, Segmenter
from unc_jax.study import run_folder
from unc_jax.uncertainty.measures import measure_all
from unc_jax.uncertainty.prediction import reduce_maps


class Run(NamedTuple):
    """A trained run, ready to segment arrays; its folder is only read."""

    segmenter: Segmenter
    warnings: tuple[str, ...] = ()  # of every case, where the run's measures fail

    def segment(
        self, array: ArrayLike, affine: ArrayLike, *, organ: ArrayLike | None = None
    ) -> Segmentation:
        """Segments one scan and returns what `predict` writes of it.

        Args:
          array: voxels (x, y, z) in any axis order, of a CT in Hounsfield units.
          affine: 4x4, voxel -> mm in RAS+ space, as nibabel has it.
          organ: mask of the liver on the same grid, for a run that segments tumours.

        Returns:
          Maps on the grid of `array`, measures (NaN where undefined), predicted Dice
          with its lower bound, reasons to review the case, warnings.

        Raises:
          InputError: a scan or an affine that cannot be used, or no organ.
        """
        # In the order of a file's voxels: rounding depends on the order in memory.
        voxels = np.asfortranarray(array)
        if voxels.dtype.kind == "f":
            voxels = voxels.astype(np.float32)
        geometry = _geometry(voxels, affine)
        if organ is not None:
            organ = np.asarray(organ, bool)
            if organ.shape != voxels.shape:
                raise InputError(f"organ {organ.shape} on a scan of {voxels.shape}")
            organ = to_canonical(organ, geometry)
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
        """Returns the network, a linen module, and its variables.

        They are of the checkpoint that the run is evaluated by; of an ensemble, the
        first member's.
        """
        return self.segmenter.predictor.model, self.segmenter.predictor.networks[0]


def load_run(path: str | Path, *, level: float = 0.9) -> Run:
    """Opens the folder of an evaluated run.

    level: share of cases whose Dice is to lie above its lower bound.

    Where the calibration cases support only a lower level, that is taken.

    Raises InputError for a folder that is incomplete or broken.
    """
    opened = run_folder.open_run(Path(path))
    model = quality.of_run(opened)
    level = quality.supported_level(model, level)
    segmenter = segment_scan.build_segmenter(opened, quality=model, level=level)
    return Run(segmenter, verdict.warnings(verdict.of_run(opened.rows)))


def score(samples: ArrayLike) -> dict[str, float]:
    """Returns the uncertainty measures of samples that any tool made, by their names.

    Args:
      samples: (n, x, y, z), n >= 2: masks (bool, or 0 and 1) or foreground
        probabilities. Masks have no `u_labelled` and no `u_labelled_binary`: both
        would be 0 whatever the masks are.

    Returns:
      One number per entry of `unc_jax.uncertainty.measures.MEASURES`, as `score`
      writes it into cases.csv; NaN where it is undefined.

    Raises:
      InputError: another shape, or values outside 0 ... 1.
    """
    samples = np.asarray(samples)
    if samples.ndim != 4 or len(samples) < 2:
        raise InputError(f"samples of shape {samples.shape}; (n, x, y, z), n >= 2")
    return measure_all(reduce_maps(_checked(sample) for sample in samples))


def _checked(sample: np.ndarray) -> np.ndarray:
    # The comparison is false for NaN too.
    if not np.all((sample >= 0) & (sample <= 1)):
        raise InputError("a sample has values outside 0 ... 1; probabilities?")
    return sample.astype(np.float32 if sample.dtype.kind == "f" else bool)


def _geometry(voxels: np.ndarray, affine: ArrayLike) -> Geometry:
    matrix = np.asarray(affine, float)
    if voxels.ndim != 3 or matrix.shape != (4, 4):
        raise InputError(
            f"an array of shape {voxels.shape} and an affine of {matrix.shape}; "
            "(x, y, z) and (4, 4) are needed"
        )
    if not np.isfinite(matrix).all() or np.linalg.det(matrix[:3, :3]) == 0:
        raise InputError("the affine spans no volume")
    x, y, z = voxels.shape
    return Geometry((x, y, z), matrix)
