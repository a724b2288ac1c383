"""Is this scan anything like those the run was trained on?"""

from collections.abc import Iterator, Mapping

import numpy as np

from unc_jax.review.prepare_scan import Range
from unc_jax.review.quality import SIGNS

_AIR_HU, _BONE_HU = -200, 150
_AIR_SHARE = 0.02  # of the voxels; even a scan cut tight to the body shows lung or air
_SLACK = 1.25  # spacing may leave the training range by this factor


def intensity_warnings(image: np.ndarray) -> Iterator[str]:
    """Whether the voxels (x, y, z) look like Hounsfield units; every eighth is read."""
    seen = image[::2, ::2, ::2]
    low, high = float(seen.min()), float(seen.max())
    if low > _AIR_HU or float((seen < _AIR_HU).mean()) < _AIR_SHARE:
        yield f"does not look like CT in HU: hardly any air (lowest value {low:g})"
    elif high < _BONE_HU:
        yield f"does not look like CT in HU: no bone (highest value {high:g})"
    elif low < -5000 or high > 50_000:
        yield f"does not look like CT in HU: values from {low:g} to {high:g}"


def spacing_warnings(
    spacing_mm: tuple[float, float, float], training: tuple[Range, Range, Range]
) -> Iterator[str]:
    """Axes whose spacing lies well outside that of the training scans."""
    for axis, size, (low, high) in zip("xyz", spacing_mm, training, strict=True):
        if not low / _SLACK <= size <= high * _SLACK:
            yield (
                f"spacing along {axis} is {size:.3g} mm, {low:.3g} to {high:.3g} mm in "
                "training"
            )


def border_warnings(mask: np.ndarray) -> Iterator[str]:
    """Sides of the scan (canonical order) that the segmentation touches."""
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
    """Measures worse than in any training or validation case, and odd volumes."""
    found = []
    for name, sign in SIGNS.items():
        value = values.get(name)
        if name in ranges and value is not None:
            low, high = ranges[name]
            if (value < low) if sign > 0 else (value > high):
                found.append(name)
    volume = values.get("volume_ml")
    if volume is not None and "volume_ml" in ranges:
        low, high = ranges["volume_ml"]
        if not low / _SLACK <= volume <= high * _SLACK:
            found.append("volume_ml")
    return found
