"""Distances between the surfaces of two masks, as "Metrics reloaded" defines them.

Maier-Hein et al., Nature Methods 21, 2024. The surface of a mask is the set of its
boundary voxels, those with at least one of six faces towards the outside (outside the
grid included); each counts as one point, at its centre. d(a, B) is the Euclidean
distance from a point to the nearest point of the other surface.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.spatial import KDTree

from unc_jax.data import preprocess

# "Near" a boundary: at most this many voxels (faces, edges, corners) from it.
NEAR_VOXELS = 4
# Of the tolerance: a header holds a spacing of 0.7 mm as float32, give or take 6e-8.
_ROUNDING = 1e-6


class Distances(NamedTuple):
    """Distances of two surfaces A and B.

    Attributes:
      hd95_mm: the greater of both directions' 95th percentiles, of d(a, B) over A and
        d(b, A) over B, between two points by linear interpolation.
      asd_mm: average over both surfaces together, (sum d(a, B) + sum d(b, A)) /
        (|A| + |B|), 0 for equal masks.
      nsd: normalised surface Dice, the share of the |A| + |B| points that lie within
        the tolerance of the other surface, 0 ... 1.
    """

    hd95_mm: float
    asd_mm: float
    nsd: float


def surface_distances(
    prediction: ArrayLike,
    reference: ArrayLike,
    spacing_mm: Sequence[float],
    *,
    tolerance_mm: float,
) -> Distances:
    """Returns HD95, average surface distance and surface Dice of two masks (x, y, z).

    spacing_mm: voxel size along x, y, z. For two empty masks all three are NaN; for one
    empty mask the distances are NaN and NSD is 0. Raises ValueError when the shapes
    differ.
    """
    predicted, true = (
        np.asarray(one).astype(bool, copy=False) for one in (prediction, reference)
    )
    if predicted.shape != true.shape:
        raise ValueError(
            f"masks of different shapes: {predicted.shape} and {true.shape}"
        )
    if not (predicted.any() and true.any()):
        nothing = not (predicted.any() or true.any())
        return Distances(np.nan, np.nan, np.nan if nothing else 0.0)
    # Arrays of files have x running fastest, which is four times as slow to search.
    order = np.argsort(np.abs(predicted.strides))[::-1]
    masks = predicted.transpose(order), true.transpose(order)
    spacing = np.asarray(spacing_mm, float)[order]
    box = preprocess.bounding_box(masks[0] | masks[1])
    one, other = (boundary(np.ascontiguousarray(mask[box])) for mask in masks)
    there, back = _nearest(one, other, spacing), _nearest(other, one, spacing)
    both = np.concatenate([there, back])
    return Distances(
        hd95_mm=float(max(np.percentile(there, 95), np.percentile(back, 95))),
        asd_mm=float(both.mean()),
        nsd=float(np.mean(both <= tolerance_mm * (1 + _ROUNDING))),
    )


def boundary(mask: np.ndarray) -> np.ndarray:
    """Returns the boundary voxels of a mask: mask minus erosion by six neighbours."""
    inner = mask.copy()
    for axis in range(mask.ndim):
        # Views with that axis in front.
        within, whole = np.moveaxis(inner, axis, 0), np.moveaxis(mask, axis, 0)
        within[1:] &= whole[:-1]
        within[:-1] &= whole[1:]
        within[0] = within[-1] = False
    return mask & ~inner


def near_boundary(label: ArrayLike) -> np.ndarray:
    """Returns the voxels within NEAR_VOXELS of the boundary of a mask, bool (x, y, z).

    The border of the volume does not count as boundary.
    """
    mask = np.asarray(label) != 0
    near = np.zeros(mask.shape, bool)
    if mask.any():
        box = tuple(
            slice(max(side.start - NEAR_VOXELS, 0), side.stop + NEAR_VOXELS)
            for side in preprocess.bounding_box(mask)
        )
        near[box] = _grown(mask[box]) & _grown(~mask[box])
    return near


def _grown(mask: np.ndarray) -> np.ndarray:
    """Returns the voxels within NEAR_VOXELS of a mask, by faces, edges and corners."""
    for axis in range(mask.ndim):
        grown, reach = np.moveaxis(mask, axis, 0), 0
        while reach < NEAR_VOXELS:
            # The widest step that leaves no gap, at the border of the volume neither.
            step = min(reach + 1, NEAR_VOXELS - reach)
            before, grown = grown, grown.copy(order="K")
            grown[step:] |= before[:-step]
            grown[:-step] |= before[step:]
            reach += step
        mask = np.moveaxis(grown, 0, axis)
    return mask


def _nearest(
    points: np.ndarray, others: np.ndarray, spacing_mm: np.ndarray
) -> np.ndarray:
    """Returns the distance of each of `points` to the nearest of `others`, bool maps.

    A k-d tree of the few surface voxels is ten times as fast as a distance transform of
    the box around a liver. Points in both have distance 0 and are not searched.
    """
    found = np.zeros(np.count_nonzero(points))
    apart = places_of(points & ~others) * spacing_mm
    # The points of a grid make a good tree without sorting for medians.
    known = places_of(others) * spacing_mm
    tree = KDTree(known, compact_nodes=False, balanced_tree=False)
    found[: len(apart)] = tree.query(apart)[0]
    return found


def places_of(mask: np.ndarray) -> np.ndarray:
    """Returns the coordinates of the voxels of a mask, int (m, 3), z fastest."""
    return np.stack(np.unravel_index(np.flatnonzero(mask), mask.shape), axis=1)
