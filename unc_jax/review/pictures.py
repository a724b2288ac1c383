"""Pictures of cases: four slices of the scan above, of the uncertainty below.

Arrays are canonical (x, y, z) in RAS+ order. Slices lie as radiologists look at them:
the patient's right, or front, on the left; front, or head, up. Each panel has a ruler;
a colour of the uncertainty means the same value in every picture, black none.
"""

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from scipy import ndimage

from unc_jax.data.preprocess import Box
from unc_jax.review import sheets
from unc_jax.review.sheets import Frame, Limits
from unc_jax.review.slices import VIEWS, choose_slices, cut, surroundings
from unc_jax.review.uncertain_part import HIGH, largest_part, thinned
from unc_jax.study.figures import MAX_UNCERTAINTY

WINDOW_HU = (-120.0, 240.0)
MASK_COLOR, REFERENCE_COLOR = "#00e5ff", "#7cfc5a"

# Pixels: sides of a panel, between panels, of titles, of the column with the locator
# and the colours.
_PANEL, _GAP, _HEADER, _SIDE = 264, 8, 17, 96
_BELOW = _HEADER + _PANEL + _GAP  # top of the lower panels
_ASIDE = 4 * (_PANEL + _GAP)  # left of that column
_RULERS_MM = (200, 100, 50, 20, 10, 5)
# What lies between few levels is noise, and costs bytes.
_GRAYS = matplotlib.colormaps["gray"].resampled(24)
_COLORS = matplotlib.colormaps["inferno"].resampled(32)
_LEVELS = (_GRAYS(range(_GRAYS.N))[:, :3], _COLORS(range(_COLORS.N))[:, :3])
_PALETTE = np.concatenate(
    [
        *_LEVELS,
        *(
            sheets.blends(color, levels[::6])
            for color in (MASK_COLOR, REFERENCE_COLOR, "white")
            for levels in _LEVELS
        ),
    ]
)
# Air of CT is below -500 HU; of other scans, whatever their unit, below a tenth. It is
# at least a tenth of the voxels.
_AIR_HU, _AIR_SHARE = -500.0, 0.1


class _Panel(NamedTuple):
    """A slice, the part of it that is shown, and where that is drawn in its square."""

    view: str
    index: int
    box: Box
    inset: Frame
    mm: float  # of a pixel


def write_picture(
    path: Path,
    image: np.ndarray,
    mask: np.ndarray,
    uncertainty: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    reference: np.ndarray | None = None,
    window: Limits = WINDOW_HU,
    uncertainty_max: float = MAX_UNCERTAINTY,
    is_scan: bool = True,
) -> None:
    """Writes a PNG of 1184 x 553 pixels, 40 to 130 kB, of one case.

    Four panels: the axial, coronal and sagittal slice of the greatest uncertainty
    around the organ, and the axial slice where the organ is largest, each cut to a
    square around its `surroundings`. Above, the scan between the two values of
    `window`; below, the uncertainty from 0 to `uncertainty_max` within the body; on
    both the outlines. Beside them the whole scan from the front, and what is cut of it.

    Args:
      image, mask, uncertainty, reference: (x, y, z), canonical RAS+ order; masks are 0
        where there is no organ. Values that are not finite are drawn as the lowest.
      spacing_mm: voxel size along x, y, z.
      is_scan: False for an `image` that shows no body; uncertainty is drawn everywhere.

    Raises ValueError when the shapes differ or are not (x, y, z).
    """
    for other in (mask, uncertainty, reference):
        if other is not None and (other.shape != image.shape or other.ndim != 3):
            raise ValueError(f"shapes differ: {image.shape} and {other.shape}")
    box = surroundings(mask, reference, uncertainty, spacing_mm)
    chosen = choose_slices(mask, uncertainty, box, spacing_mm, reference=reference)
    masks = [] if reference is None else [(reference, REFERENCE_COLOR)]
    masks.append((mask, MASK_COLOR))
    sheet = sheets.new_sheet(_ASIDE + _SIDE, _BELOW + _PANEL)
    air = _air(image) if is_scan else None
    views = zip((*VIEWS, "axial"), chosen, strict=True)
    for number, (view, index) in enumerate(views):
        panel = _panel(view, index, box, image.shape, spacing_mm)
        shown = cut(image, view, index, panel.box)
        unsure = _within_body(uncertainty, image, mask, panel, air)
        left = number * (_PANEL + _GAP)
        _draw_panel(sheet, panel, shown, window, masks, (left, _HEADER), _GRAYS)
        limits = 0.0, uncertainty_max
        _draw_panel(sheet, panel, unsure, limits, masks, (left, _BELOW), _COLORS)
        _name_panel(sheet, panel, image.shape, left)
    _draw_locator(sheet, image, masks, box, spacing_mm)
    _draw_scale(sheet, uncertainty_max)
    sheets.save(sheet, path, _PALETTE)


def _panel(
    view: str,
    index: int,
    box: Box,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, ...],
) -> _Panel:
    """Returns a slice cut to a square around the box, as far as the scan goes."""
    across, down, _ = VIEWS[view]
    side_mm = max((box[a].stop - box[a].start) * spacing_mm[a] for a in (across, down))
    place, lengths = list(box), []
    for axis in (across, down):
        wanted = round(side_mm / spacing_mm[axis])
        length = min(max(wanted, 1), shape[axis])
        middle = (box[axis].start + box[axis].stop - length) // 2
        start = min(max(middle, 0), shape[axis] - length)
        place[axis] = slice(start, start + length)
        pixels = round(_PANEL * length * spacing_mm[axis] / side_mm)
        lengths.append(min(max(pixels, 1), _PANEL))
    width, height = lengths
    inset = ((_PANEL - width) // 2, (_PANEL - height) // 2, width, height)
    return _Panel(view, index, (place[0], place[1], place[2]), inset, side_mm / _PANEL)


def _air(image: np.ndarray) -> float:
    """Returns a value between those of air and body; -inf where there is no air."""
    values = np.nan_to_num(image[thinned(_whole(image))], posinf=0, neginf=0)
    low, high = np.percentile(values, (0, 99))
    air = _AIR_HU if low < _AIR_HU else low + _AIR_SHARE * (high - low)
    # A scan that is cut to the inside of the body has but a few dark voxels.
    return air if (values < air).mean() > _AIR_SHARE else -np.inf


def _within_body(
    uncertainty: np.ndarray,
    image: np.ndarray,
    mask: np.ndarray,
    panel: _Panel,
    air: float | None,
) -> np.ndarray:
    """Returns the panel's uncertainty (rows, columns), 0 outside body and mask.

    Body is what lies within the outline of the slice's largest part denser than air.
    """
    shown = cut(uncertainty, panel.view, panel.index, panel.box)
    if air is None:
        return shown
    across, down, _ = VIEWS[panel.view]
    axis = 3 - across - down
    plane = tuple(
        slice(panel.index, panel.index + 1) if a == axis else slice(None)
        for a in range(3)
    )
    dense = largest_part(image[plane] > air).squeeze(axis)
    # Lungs go on above a scan that ends in them: they are no air outside.
    ends = ((0, 0), (int(axis < 2),) * 2)
    sealed = np.pad(dense, ends, constant_values=True)
    body = np.asarray(ndimage.binary_fill_holes(sealed))
    body = body[:, ends[1][0] : body.shape[1] - ends[1][1]]
    inside = np.expand_dims(body, axis) | (mask[plane] != 0)
    return np.where(cut(inside, panel.view, 0, panel.box), shown, 0)


def _whole(image: np.ndarray) -> Box:
    x, y, z = (slice(0, size) for size in image.shape)
    return x, y, z


def _draw_panel(
    sheet: Axes,
    panel: _Panel,
    values: np.ndarray,
    limits: Limits,
    masks: list[tuple[np.ndarray, str]],
    corner: tuple[float, float],
    colors: Colormap,
) -> None:
    """Draws values (rows, columns) and outlines into the square at `corner`."""
    (left, top), (x, y, width, height) = corner, panel.inset
    frame = left + x, top + y, width, height
    sheets.draw_slice(sheet, values, frame, colors, limits)
    for mask, color in masks:
        inside = cut(mask, panel.view, panel.index, panel.box) != 0
        sheets.draw_contour(sheet, inside, frame, color)


def _name_panel(
    sheet: Axes, panel: _Panel, shape: tuple[int, ...], left: float
) -> None:
    """Writes the title above a panel, what lies left and right in it, and a ruler."""
    across, down, letters = VIEWS[panel.view]
    half, right = _HEADER + _PANEL / 2, left + _PANEL
    title = f"{panel.view} {panel.index + 1}/{shape[3 - across - down]}"
    sheets.write(sheet, left + _PANEL / 2, 2, title, "center", "top")
    sheets.write(sheet, left + 3, half, letters[0], "left", "center")
    sheets.write(sheet, right - 3, half, letters[1], "right", "center")
    fitting = [mm for mm in _RULERS_MM if mm <= 0.4 * _PANEL * panel.mm]
    if not fitting:
        return
    foot, start = _HEADER + _PANEL - 7, right - 7 - fitting[0] / panel.mm
    sheets.draw_lines(sheet, [np.array([(start, foot), (right - 7, foot)])], "white")
    sheets.write(sheet, right - 7, foot - 3, f"{fitting[0]} mm", "right", "bottom")


def _draw_locator(
    sheet: Axes,
    image: np.ndarray,
    masks: list[tuple[np.ndarray, str]],
    box: Box,
    spacing_mm: tuple[float, float, float],
) -> None:
    """Draws the mean of the scan along y, its masks, and the part that is shown."""
    whole = _whole(image)
    sides_mm = image.shape[0] * spacing_mm[0], image.shape[2] * spacing_mm[2]
    mm = max(sides_mm[0] / _SIDE, sides_mm[1] / _PANEL)
    width, height = (max(side / mm, 1) for side in sides_mm)
    frame = _ASIDE + (_SIDE - width) / 2, _HEADER, width, height
    front = np.nan_to_num(image[thinned(whole)], posinf=0, neginf=0)
    front = front.mean(axis=1, keepdims=True)
    limits = float(front.min()), float(front.max())
    sheets.draw_slice(sheet, cut(front, "coronal", 0, whole), frame, _GRAYS, limits)
    for mask, color in masks:
        shadow = (mask != 0).any(axis=1, keepdims=True)
        sheets.draw_contour(sheet, cut(shadow, "coronal", 0, whole), frame, color)
    part = np.zeros((image.shape[0], 1, image.shape[2]), bool)
    part[box[0], :, box[2]] = True
    sheets.draw_contour(sheet, cut(part, "coronal", 0, whole), frame, "white")
    sheets.write(sheet, _ASIDE + _SIDE / 2, 2, "whole scan", "center", "top")


def _draw_scale(sheet: Axes, largest: float) -> None:
    """Draws the colours of the uncertainty, 0 to `largest` nats."""
    ramp = np.linspace(1, 0, _COLORS.N)[:, None]
    frame = _ASIDE + 2, _BELOW, 8, _PANEL
    sheets.draw_slice(sheet, ramp, frame, _COLORS, (0, 1))
    texts = ((1, f"{largest:.2f} nats", "top"), (HIGH / largest, f"{HIGH}", "center"))
    for up, text, place in (*texts, (0, "0: certain", "bottom")):
        down = _BELOW + (1 - up) * _PANEL
        sheets.write(sheet, _ASIDE + 14, down, text, "left", place)
