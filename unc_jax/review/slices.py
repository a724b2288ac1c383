"""Slices of a case that a picture shows, and the part of them around the organ.

Arrays are canonical (x, y, z) in RAS+ order.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unc_jax.data.preprocess import Box

_MARGIN_MM = 25.0  # of surroundings shown around the organ
_NEAR_MM = 10.0  # around the organ, where uncertainty counts


class Slices(NamedTuple):
    """Indices in the canonical grid: z, y, x of most uncertainty, z of most organ."""

    axial: int
    coronal: int
    sagittal: int
    largest: int


def surroundings(
    mask: np.ndarray, reference: np.ndarray | None, spacing_mm: tuple[float, ...]
) -> Box:
    """Returns the box of mask and reference and a margin; all if both are empty."""
    shown = [m != 0 for m in (mask, reference) if m is not None]
    box = []
    for axis, millimetres in enumerate(spacing_mm):
        others = tuple(a for a in range(3) if a != axis)
        places = np.flatnonzero(sum(m.any(axis=others) for m in shown))
        margin = int(np.ceil(_MARGIN_MM / millimetres))
        low, high = (places[0], places[-1]) if len(places) else (0, mask.shape[axis])
        start, stop = max(int(low) - margin, 0), int(high) + 1 + margin
        box.append(slice(start, min(stop, mask.shape[axis])))
    return box[0], box[1], box[2]


def choose_slices(
    mask: np.ndarray,
    uncertainty: np.ndarray,
    box: Box,
    spacing_mm: tuple[float, ...],
    *,
    reference: np.ndarray | None = None,
) -> Slices:
    """Chooses the slices to show, indices of the whole grid; ties go to the lower.

    Per axis the slice with the greatest sum of uncertainty in its part of the organ and
    up to 10 mm around that: an unsure network leaves some uncertainty all over a scan,
    which would draw the eye to slices without any organ. Without any uncertainty, the
    slice of most organ. Organ is the mask, or the reference where the mask is empty;
    where both are, the uncertainty of the whole box counts, or its middle is shown.
    """
    # More than some millions of voxels tell nothing more of where to look.
    step = max(1, round((np.prod([s.stop - s.start for s in box]) / 8e6) ** (1 / 3)))
    sparse = tuple(slice(s.start, s.stop, step) for s in box)
    organ = mask[sparse] != 0
    if reference is not None and not organ.any():
        organ = reference[sparse] != 0
    values = uncertainty[sparse]
    finite = np.isfinite(values)
    reaches = [round(_NEAR_MM / (step * millimetres)) for millimetres in spacing_mm]
    best, largest = [], []
    for axis in range(3):
        others = tuple(a for a in range(3) if a != axis)
        start, length = box[axis].start, values.shape[axis]
        counted = finite & _around(organ, {a: reaches[a] for a in others})
        unsure = values.sum(axis=others, dtype=np.float64, where=counted)
        area = organ.sum(axis=others)
        most = int(area.argmax()) if area.any() else length // 2
        largest.append(start + step * most)
        first = int(unsure.argmax()) if unsure.max() > 0 else most
        best.append(start + step * first)
    x, y, z = best
    return Slices(axial=z, coronal=y, sagittal=x, largest=largest[2])


def _around(organ: np.ndarray, reaches: dict[int, int]) -> np.ndarray:
    """Returns the organ and a margin of voxels along some axes; all without organ."""
    if not organ.any():
        return ~organ
    near = organ.view(np.uint8)
    for axis, reach in reaches.items():
        near = ndimage.maximum_filter1d(near, 2 * reach + 1, axis, mode="constant")
    return near != 0
