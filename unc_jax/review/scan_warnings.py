"""Warnings of a scan that is unlike a run's training cases, or a copy of one."""

from collections.abc import Iterator, Mapping

import numpy as np

from unc_jax.data import copies
from unc_jax.data.geometry import Geometry, header_notes
from unc_jax.review.prepare_scan import Preparation, Range
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

_AIR_HU, _BONE_HU = -200, 150
_AIR_SHARE = 0.02  # of the voxels; even a scan cut tight to the body shows lung or air
_SLACK = 1.25  # the volume may leave the training range by this factor
# Scans are resampled to one shape, which evens spacing out: up to twice as fine or as
# coarse as in training is seen in every hospital and changes little.
_SPACING_SLACK = 2


def of_intensities(image: np.ndarray, preparation: Preparation) -> Iterator[str]:
    """Yields a warning when voxels (x, y, z) do not look like Hounsfield units.

    Every eighth voxel is read. A run without a window of HU (MR) has no scale to hold
    a scan to.
    """
    if not preparation.window_hu:
        return
    seen = image[::2, ::2, ::2]
    low, high = float(seen.min()), float(seen.max())
    if low > _AIR_HU or float((seen < _AIR_HU).mean()) < _AIR_SHARE:
        yield f"does not look like CT in HU: hardly any air (lowest value {low:g})"
    elif high < _BONE_HU:
        yield f"does not look like CT in HU: no bone (highest value {high:g})"
    elif low < -5000 or high > 50_000:
        yield f"does not look like CT in HU: values from {low:g} to {high:g}"


def of_geometry(geometry: Geometry, preparation: Preparation) -> Iterator[str]:
    """Yields a warning for a missing or odd geometry, and per unusual spacing."""
    yield from header_notes(geometry)
    known = zip("xyz", geometry.spacing_mm, preparation.spacing_mm, strict=True)
    for axis, size, (low, high) in known:
        if not low / _SPACING_SLACK <= size <= high * _SPACING_SLACK:
            yield (
                f"spacing along {axis} is {size:.3g} mm, {low:.3g} to {high:.3g} mm in "
                "training"
            )


def of_copies(image: np.ndarray, preparation: Preparation) -> Iterator[str]:
    """Yields a warning when the network was trained on a scan with these voxels."""
    if preparation.trained_on:
        case = preparation.trained_on.get(copies.digest(image))
        if case is not None:
            yield f"has the voxels of {case}, a training case of the run"


def of_border(mask: np.ndarray) -> Iterator[str]:
    """Yields the sides of the scan (canonical order) that the segmentation touches."""
    sides = {
        "left": mask[0],
        "right": mask[-1],
        "back": mask[:, 0],
        "front": mask[:, -1],
        "bottom": mask[:, :, 0],
        "top": mask[:, :, -1],
    }
    # RAS+: the first x plane is the patient's left side.
    touched = [name for name, plane in sides.items() if plane.any()]
    if touched:
        yield f"touches the scan's border ({', '.join(touched)}): may be cut off"


def unlike(
    values: Mapping[str, float | None], ranges: Mapping[str, Range]
) -> list[str]:
    """Returns measures worse than in any training or validation case, and odd volumes.

    ranges: measure or volume_ml -> its range over those cases.
    """
    found = []
    for name in PAPER_MEASURES:
        value = values.get(name)
        if name in ranges and value is not None:
            low, high = ranges[name]
            if (value < low) if MEASURES[name].sign > 0 else (value > high):
                found.append(name)
    volume = values.get("volume_ml")
    if volume is not None and "volume_ml" in ranges:
        low, high = ranges["volume_ml"]
        if not low / _SLACK <= volume <= high * _SLACK:
            found.append("volume_ml")
    return found
