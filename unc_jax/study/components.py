"""Connected components (lesions) of a mask, and of its samples.

Voxels are connected by faces, edges and corners. Time and memory depend on the number
of voxels that a sample marks, not on the size of their bounding box.
"""

from itertools import combinations
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from unc_jax.study.distances import boundary, places_of
from unc_jax.uncertainty.packed_masks import bits_at
from unc_jax.uncertainty.prediction import THRESHOLD, Prediction

# Directions of a diameter, 5 degrees apart: one between two is missed by 0.1 %.
_ANGLES = np.deg2rad(np.arange(0, 180, 5))
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)])


class Component(NamedTuple):
    """A component of the final mask, or one that only samples have.

    Attributes:
      volume_ml, diameter_mm, place_mm, u: of the component's voxels; of one that only
        samples have, of all voxels that any of them marks. The diameter is the longest
        one in a slice across z, from edge to edge of its voxels; the place the centre
        of mass, RAS mm; u the mean of the uncertainty map, nats.
      presence: share of the samples with a voxel in it.
      d_pw: mean pairwise Dice of the samples around it, where none marks anything 1;
        NaN of one sample.
        A voxel of a sample belongs to the nearest component that it is connected to by
        voxels that any sample marks.
      matched: whether a voxel of it is in the reference; None without one.
      in_mask: whether it is one of the final mask.
    """

    volume_ml: float
    diameter_mm: float
    place_mm: tuple[float, float, float]
    presence: float
    d_pw: float
    u: float
    matched: bool | None
    in_mask: bool


class Lesions(NamedTuple):
    """Comparison of a mask with the components of its reference.

    Attributes:
      count: number of components of the reference.
      found: number of these with a voxel in the mask.
      false_positives: components of the mask without a voxel in the reference.
      dice: mean over the reference's components of their Dice with those of the mask
        that they share a voxel with, 0 where none does; NaN without any.
    """

    count: int
    found: int
    false_positives: int
    dice: float


def find_components(
    prediction: Prediction,
    affine: np.ndarray,
    reference: np.ndarray | None = None,
    *,
    most: int,
) -> tuple[list[Component], int]:
    """Finds the components of the mask, then those that only samples have.

    The former are sorted by volume, the latter by presence, then volume, in descending
    order. Returns at most `most` components, and their total number; none if no sample
    has a voxel. affine: 4x4, voxel -> RAS mm; reference: mask (x, y, z).
    """
    union = np.bitwise_or.reduce(prediction.masks, axis=0)
    places = places_of(np.unpackbits(union, axis=-1, count=prediction.mean.shape[2]))
    at = tuple(places.T)
    inside = prediction.mean[at] >= THRESHOLD
    final = np.zeros(len(places), int)
    final[inside] = label(places[inside])
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    own, around, of_mask = _split(final, label(places), places, spacing)
    count = int(around.max(initial=0))
    samples = bits_at(prediction.masks, places)
    presence = np.mean([_count(own[one], count) > 0 for one in samples], axis=0)
    voxels = _count(own, count)
    u = _count(own, count, prediction.uncertainty[at]) / voxels
    agreement = _pairwise_dice(samples, around, count)
    matched = [None] * count
    if reference is not None:
        matched = (_count(own[reference[at] != 0], count) > 0).tolist()
    voxel_ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    alone = np.arange(count) >= of_mask
    order = np.lexsort((-voxels, -presence * alone, alone))[:most]
    by_label = np.argsort(own, kind="stable")
    ends = np.cumsum(np.bincount(own, minlength=count + 1))
    found = []
    for i in order.tolist():
        mine = places[by_label[ends[i] : ends[i + 1]]]
        x, y, z = (affine[:3, :3] @ mine.mean(axis=0) + affine[:3, 3]).tolist()
        found.append(
            Component(
                volume_ml=float(voxels[i] * voxel_ml),
                diameter_mm=diameter_mm(mine, spacing),
                place_mm=(x, y, z),
                presence=float(presence[i]),
                d_pw=float(agreement[i]),
                u=float(u[i]),
                matched=matched[i],
                in_mask=i < of_mask,
            )
        )
    return found, count


def compare_lesions(mask: np.ndarray, reference: np.ndarray) -> Lesions:
    """Compares the components of two masks (x, y, z)."""
    shared_places = places_of((mask != 0) & (reference != 0))
    ours, here = _labels_at(mask, shared_places)
    theirs, there = _labels_at(reference, shared_places)
    sizes, count = np.bincount(ours), int(theirs.max(initial=0))
    # A pair is coded as one number: sorting rows would be twenty times as slow.
    codes, shared = np.unique(here * (count + 1) + there, return_counts=True)
    own, of = np.divmod(codes, count + 1)
    overlap = _count(of, count, shared)
    reached = _count(of, count, sizes[own])
    dices = 2 * overlap / (_count(theirs, count) + reached)
    return Lesions(
        count=count,
        found=int(np.count_nonzero(overlap)),
        false_positives=int(ours.max(initial=0)) - len(np.unique(own)),
        dice=float(dices.mean()) if count else np.nan,
    )


def outside_largest(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the components other than the largest as a mask, and their number."""
    places = places_of(mask)
    labels = label(places)
    sizes = _count(labels, int(labels.max(initial=0)))
    rest = np.zeros(mask.shape, bool)
    if len(sizes) > 1:
        rest[tuple(places[labels != sizes.argmax() + 1].T)] = True
    return rest, max(len(sizes) - 1, 0)


def label(places: np.ndarray) -> np.ndarray:
    """Numbers the components of voxels, int (m, 3) -> (m,), from 1."""
    grid, at = _compact(places)
    found, _ = ndimage.label(grid, np.ones((3, 3, 3)))  # type: ignore[misc]
    return found[at].astype(int)


def diameter_mm(places: np.ndarray, spacing_mm: np.ndarray) -> float:
    """Returns the longest diameter of voxels (m, 3) in one slice across z, mm.

    Measured between outer edges: for a single voxel it is its diagonal.
    """
    order = np.lexsort((places[:, 1], places[:, 0], places[:, 2]))
    columns = places[order]
    # First and last voxel along y of each column; no other lies farther out.
    new = np.any(np.diff(columns[:, [0, 2]], axis=0, prepend=-1), axis=1)
    ends = columns[new | np.append(new[1:], True)]
    across = ends[:, :2] * spacing_mm[:2]
    slices = np.flatnonzero(np.diff(ends[:, 2], prepend=-1))
    along = across @ _DIRECTIONS
    extent = np.maximum.reduceat(along, slices) - np.minimum.reduceat(along, slices)
    edges = np.abs(_DIRECTIONS * spacing_mm[:2, None]).sum(axis=0)
    return float((extent + edges).max())


def _compact(places: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Returns a small grid (bool) of voxels (m, 3), and their positions in it.

    Each run of planes without voxels is reduced to a single plane, which preserves
    which voxels are neighbours.
    """
    at = []
    for own in places.T:
        there = np.flatnonzero(np.bincount(own))
        position = np.zeros(there.max(initial=0) + 1, int)
        position[there[1:]] = np.cumsum(np.minimum(np.diff(there), 2))
        at.append(position[own])
    grid = np.zeros([one.max(initial=0) + 1 for one in at], bool)
    grid[tuple(at)] = True
    return grid, tuple(at)


def _labels_at(mask: np.ndarray, some: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the component of each voxel of a mask, and of `some` of them, (m, 3)."""
    places = places_of(mask)
    labels = label(places)
    flat, wanted = (np.ravel_multi_index(p.T, mask.shape) for p in (places, some))
    return labels, labels[np.searchsorted(flat, wanted)]


def _split(
    final: np.ndarray, joined: np.ndarray, places: np.ndarray, spacing_mm: np.ndarray
) -> tuple[np.ndarray, np.ndarray, int]:
    """Divides the voxels that any sample marks among components.

    final: component of the mask, 0 outside; joined: component of all samples together.
    Returns the component that a voxel is part of (0 if it is only near one of the
    mask), the one that it belongs to, and how many are of the mask: the first ones.
    """
    of_mask = int(final.max(initial=0))
    around = final.copy()
    mixed = np.isin(joined, joined[final > 0])
    for one in np.unique(joined[mixed & (final == 0)]):
        inside = joined == one
        open_ = np.flatnonzero(inside & (final == 0))
        known = np.flatnonzero(inside & (final > 0))
        nearest = np.zeros(len(open_), int)
        if np.ptp(final[known]):
            # The nearest voxel of a component is one of its boundary.
            grid, at = _compact(places[known])
            known = known[boundary(grid)[at]]
            tree = KDTree(places[known] * spacing_mm)
            nearest = tree.query(places[open_] * spacing_mm)[1]
        around[open_] = final[known][nearest]
    _, number = np.unique(joined[~mixed], return_inverse=True)
    around[~mixed] = of_mask + 1 + number
    return np.where(mixed, final, around), around, of_mask


def _pairwise_dice(samples: np.ndarray, around: np.ndarray, count: int) -> np.ndarray:
    # Most voxels of an organ are in all samples: they are counted once.
    always = samples.all(axis=0)
    shared = _count(around[always], count)
    samples, around = samples[:, ~always], around[~always]
    sizes = [shared + _count(around[one], count) for one in samples]
    total = np.zeros(count)
    pairs = list(combinations(range(len(samples)), 2))
    for i, j in pairs:
        both = shared + _count(around[samples[i] & samples[j]], count)
        size = sizes[i] + sizes[j]
        total += np.where(size > 0, 2 * both / np.maximum(size, 1), 1.0)
    return total / len(pairs) if pairs else np.full(count, np.nan)


def _count(
    labels: np.ndarray, count: int, weights: np.ndarray | None = None
) -> np.ndarray:
    """Sums the voxels of each label from 1 to `count`, or their weights."""
    return np.bincount(labels, weights, minlength=count + 1)[1:]
