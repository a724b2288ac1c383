"""Slices of a case that a picture shows, and the part of them around the organ.

Arrays are canonical (x, y, z) in RAS+ order.
"""

from typing import NamedTuple

import numpy as np
from scipy import ndimage

from unc_jax.data.preprocess import Box, bounding_box
from unc_jax.review.uncertain_part import HIGH, largest_part, thinned

# View: array axes across and down, and what lies left and right.
VIEWS = {"axial": (0, 1, "RL"), "coronal": (0, 2, "RL"), "sagittal": (1, 2, "AP")}
_MARGIN_MM = 25.0  # of surroundings shown around the organ
_NEAR_MM = 10.0  # around the organ, where uncertainty counts
# An uncertain part that makes the longest side more than this many times the organ's
# is not shown: the organ would be a spot.
_WIDEST = 1.5


class Slices(NamedTuple):
    """Indices in the canonical grid: z, y, x of most uncertainty, z of most organ."""

    axial: int
    coronal: int
    sagittal: int
    largest: int


def cut(array: np.ndarray, view: str, index: int, box: Box) -> np.ndarray:
    """Returns a slice of the box in screen order (rows, columns), voxel by voxel."""
    across, down, _ = VIEWS[view]
    place: list[slice | int] = list(box)
    place[3 - across - down] = index
    # x and y grow to the patient's right and front, z to the head.
    return array[tuple(place)].T[::-1, ::-1]


def surroundings(
    mask: np.ndarray,
    reference: np.ndarray | None,
    uncertainty: np.ndarray,
    spacing_mm: tuple[float, ...],
) -> Box:
    """Returns the box of organ and most uncertain part, and a margin around them.

    Organ is the largest part of the mask and of the reference: blobs far from it would
    make it small. The largest part of high uncertainty is left out where it is far from
    the organ or much larger. Without organ and high uncertainty, the whole grid.
    """
    organs = [_box_of(m != 0) for m in (mask, reference) if m is not None]
    found = _join([one for one in organs if one])
    unsure = _box_of(uncertainty > HIGH)
    both = _join([one for one in (found, unsure) if one])
    if (
        found
        and both
        and _side_mm(both, spacing_mm) > _WIDEST * _side_mm(found, spacing_mm)
    ):
        both = found
    box = []
    for axis, (size, mm) in enumerate(zip(mask.shape, spacing_mm, strict=True)):
        inner = both[axis] if both else slice(0, size)
        margin = int(np.ceil(_MARGIN_MM / mm))
        box.append(slice(max(inner.start - margin, 0), min(inner.stop + margin, size)))
    return box[0], box[1], box[2]


def _box_of(inside: np.ndarray) -> Box | None:
    """Returns the box of the largest part of a mask; None when it is empty."""
    if not inside.any():
        return None
    outer = bounding_box(inside)
    thin = thinned(outer)
    part = largest_part(inside[thin])
    if not part.any():  # all of it lies between the steps
        return outer
    inner = bounding_box(part)
    x, y, z = (
        slice(o.start + i.start * o.step, min(o.start + i.stop * o.step, o.stop))
        for o, i in zip(thin, inner, strict=True)
    )
    return x, y, z


def _join(boxes: list[Box]) -> Box | None:
    if not boxes:
        return None
    x, y, z = (
        slice(min(s.start for s in sides), max(s.stop for s in sides))
        for sides in zip(*boxes, strict=True)
    )
    return x, y, z


def _side_mm(box: Box, spacing_mm: tuple[float, ...]) -> float:
    return max((s.stop - s.start) * mm for s, mm in zip(box, spacing_mm, strict=True))


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
    sparse = thinned(box)
    step = sparse[0].step
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
