"""Describes in words where the uncertainty of a case is: its largest part.

Arrays are canonical (x, y, z) in RAS+ order.
"""

import numpy as np
from scipy import ndimage

from unc_jax.data.preprocess import Box, bounding_box
from unc_jax.review.page import rounded

# Nats. -p log p is above it where p is between 0.08 and 0.77, and at most 0.37.
HIGH = 0.2
_ENOUGH = 3e6  # voxels; a finer grid does not improve the description
_DIRECTIONS = (
    ("left", "right"),
    ("posterior", "anterior"),
    ("towards the feet", "towards the head"),
)
# Share of half the organ's length: a part nearer to its centre has no direction.
_ASIDE = 0.25
_ALONG = 0.75  # share of the organ's length: a longer part is on both sides
_NEARLY = 0.9  # a part is inside (outside) the mask by this share of its voxels


def describe_uncertainty(
    mask: np.ndarray, uncertainty: np.ndarray, spacing_mm: tuple[float, ...]
) -> str:
    """Returns how many ml have high uncertainty, and where their largest part lies.

    "38 ml above 0.2, largest part (21 ml) at the border of the mask: left, anterior".
    Left is the patient's; directions are from the centre of the mask to the centre of
    the part. Without a mask there are no directions; "none above 0.2" where there is
    no high uncertainty.
    """
    high = uncertainty > HIGH
    count = np.count_nonzero(high)
    if not count:
        return f"none above {HIGH}"
    thin = thinned(bounding_box(high | (mask != 0)))
    part, organ = largest_part(high[thin]), mask[thin] != 0
    voxel_ml = float(np.prod(spacing_mm)) / 1000
    total = f"{rounded(count * voxel_ml)} ml above {HIGH}"
    if not part.any() or not organ.any():
        return total
    part_ml = min(np.count_nonzero(part) * thin[0].step ** 3, count) * voxel_ml
    steps_mm = np.array(spacing_mm) * thin[0].step
    return f"{total}, largest part ({rounded(part_ml)} ml) " + _whereabouts(
        part, organ, steps_mm
    )


def _whereabouts(part: np.ndarray, organ: np.ndarray, steps_mm: np.ndarray) -> str:
    """Returns where a part lies, seen from the centre of an organ; neither is empty."""
    share = np.count_nonzero(organ & part) / np.count_nonzero(part)
    place = "inside" if share > _NEARLY else "at the border of"
    place = f"{'outside' if share < 1 - _NEARLY else place} the mask"
    (own, length), (centre, whole) = (_place(m, steps_mm) for m in (part, organ))
    if (length > _ALONG * whole).all():
        return f"{place}, on all sides"
    offset = own - centre
    if share < 1 - _NEARLY:
        place += f", {rounded(float(np.linalg.norm(offset)) / 10)} cm from its centre"
    said = [
        words[int(offset[axis] > 0)]
        for axis, words in enumerate(_DIRECTIONS)
        if abs(offset[axis]) > _ASIDE * whole[axis] / 2
    ]
    return f"{place}: {', '.join(said) or 'near its centre'}"


def _place(inside: np.ndarray, steps_mm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the centre of mass and the lengths of a mask along x, y, z, mm."""
    places = np.argwhere(inside)
    return places.mean(axis=0) * steps_mm, (np.ptp(places, axis=0) + 1) * steps_mm


def largest_part(inside: np.ndarray) -> np.ndarray:
    """Returns the largest component of a mask of any dimension, the first of equals.

    Voxels are connected by faces, edges and corners.
    """
    labels, _ = ndimage.label(inside, np.ones((3,) * inside.ndim))  # type: ignore[misc]
    sizes = np.bincount(labels.ravel())
    return labels == 1 + sizes[1:].argmax() if len(sizes) > 1 else inside


def thinned(box: Box) -> Box:
    """Returns the box with one step for all axes that leaves some million voxels."""
    size = np.prod([s.stop - s.start for s in box])
    step = max(1, round((size / _ENOUGH) ** (1 / 3)))
    x, y, z = (slice(s.start, s.stop, step) for s in box)
    return x, y, z
