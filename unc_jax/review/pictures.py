"""Pictures of cases: four slices of the scan above, of the uncertainty below.

Arrays are canonical (x, y, z) in RAS+ order. Slices lie as radiologists look at them:
the patient's right, or front, on the left; front, or head, up. Panels of a picture have
one scale in mm; a colour of the uncertainty means the same value in every picture.
"""

from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image
from scipy import ndimage

from unc_jax.data import files
from unc_jax.study.figures import MAX_UNCERTAINTY

WINDOW_HU = (-120.0, 240.0)
MASK_COLOR, REFERENCE_COLOR = "#00e5ff", "#7cfc5a"

_MARGIN_MM = 25.0  # of surroundings shown around the organ
_NEAR_MM = 10.0  # around the organ, where uncertainty counts
# View: array axes across and down, and what lies left and right.
_VIEWS = {"axial": (0, 1, "RL"), "coronal": (0, 2, "RL"), "sagittal": (1, 2, "AP")}
# Pixels: longest side of a panel, narrowest column, between columns, of titles, of the
# colour bar; dots per inch only scale the letters.
_PANEL, _NARROWEST, _GAP, _HEADER, _LEGEND, _DPI = 180, 84, 12, 17, 44, 100
# What lies between few levels is noise, and costs bytes.
_GRAYS = matplotlib.colormaps["gray"].resampled(32)
_COLORS = matplotlib.colormaps["inferno"].resampled(48)

Box = tuple[slice, slice, slice]
Limits = tuple[float, float]  # the values of the first and the last colour
Frame = tuple[float, float, float, float]  # left, top, width, height


class Slices(NamedTuple):
    """Indices in the canonical grid: z, y, x of most uncertainty, z of most organ."""

    axial: int
    coronal: int
    sagittal: int
    largest: int


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
) -> None:
    """Writes a PNG of at most about 800 x 380 pixels, some tens of kB, of one case.

    Four columns: the axial, coronal and sagittal slice of the greatest uncertainty
    around the organ, and the axial slice where the organ is largest. Above, the scan
    between the two values of `window`; below, the uncertainty from 0 to
    `uncertainty_max`; both with the contour of the mask (and, in another colour, of
    the reference). Everything is cut to the organ and 25 mm around it; an empty mask
    shows all.

    Args:
      image, mask, uncertainty, reference: (x, y, z), canonical RAS+ order; masks are 0
        where there is no organ. Values that are not finite are drawn as the lowest.
      spacing_mm: voxel size along x, y, z.

    Raises ValueError when the shapes differ or are not (x, y, z).
    """
    for other in (mask, uncertainty, reference):
        if other is not None and (other.shape != image.shape or other.ndim != 3):
            raise ValueError(f"shapes differ: {image.shape} and {other.shape}")
    box = surroundings(mask, reference, spacing_mm)
    chosen = choose_slices(mask, uncertainty, box, spacing_mm, reference=reference)
    sides_mm = [(s.stop - s.start) * mm for s, mm in zip(box, spacing_mm, strict=True)]
    sides = [max(round(_PANEL * side / max(sides_mm)), 1) for side in sides_mm]
    views = ("axial", "coronal", "sagittal", "axial")
    widths = [max(sides[_VIEWS[view][0]], _NARROWEST) for view in views]
    height = max(sides[_VIEWS[view][1]] for view in views)
    half, below = _HEADER + height / 2, _HEADER + height + _GAP // 2
    sheet = _sheet(sum(widths) + 4 * _GAP + _LEGEND, below + height)
    rows = (
        (_HEADER, image, _GRAYS, window),
        (below, uncertainty, _COLORS, (0.0, uncertainty_max)),
    )
    masks = ((reference, REFERENCE_COLOR), (mask, MASK_COLOR))
    left = 0
    for view, index, width in zip(views, chosen, widths, strict=True):
        across, down, letters = _VIEWS[view]
        for top, array, colors, limits in rows:
            inset = (width - sides[across]) // 2, (height - sides[down]) // 2
            frame = left + inset[0], top + inset[1], sides[across], sides[down]
            _draw_slice(sheet, cut(array, view, index, box), frame, colors, limits)
            for shown, color in masks:
                if shown is not None:
                    inside = cut(shown, view, index, box) != 0
                    _draw_contour(sheet, inside, frame, color)
        title = f"{view} {index + 1}/{image.shape[3 - across - down]}"
        _write(sheet, left + width / 2, 2, title, "center", "top")
        _write(sheet, left + 3, half, letters[0], "left", "center")
        _write(sheet, left + width - 3, half, letters[1], "right", "center")
        left += width + _GAP
    ramp = np.linspace(1, 0, _COLORS.N)[:, None]
    _draw_slice(sheet, ramp, (left + 2, below, 8, height), _COLORS, (0, 1))
    _write(sheet, left + 13, below, f"{uncertainty_max:.2f}", "left", "top")
    _write(sheet, left + 13, below + height / 2, "nats", "left", "center")
    _write(sheet, left + 13, below + height, "0", "left", "bottom")
    _save(sheet, path)


def cut(array: np.ndarray, view: str, index: int, box: Box) -> np.ndarray:
    """Returns a slice of the box in screen order (rows, columns), voxel by voxel."""
    across, down, _ = _VIEWS[view]
    place: list[slice | int] = list(box)
    place[3 - across - down] = index
    # x and y grow to the patient's right and front, z to the head.
    return array[tuple(place)].T[::-1, ::-1]


def _sheet(width: int, height: int) -> Axes:
    """Returns black axes whose coordinates are pixels from the left and the top."""
    inches = width / _DPI, height / _DPI
    figure = Figure(inches, dpi=_DPI, facecolor="black")  # type: ignore[arg-type]
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.autoscale(False)
    return axes


def _draw_slice(
    sheet: Axes, values: np.ndarray, frame: Frame, colors: Colormap, limits: Limits
) -> None:
    left, top, width, height = frame
    values = np.where(np.isfinite(values), values, limits[0]).astype(np.float32)
    sheet.imshow(
        values,
        cmap=colors,
        vmin=limits[0],
        vmax=limits[1],
        extent=(left, left + width, top + height, top),
        aspect="auto",
        interpolation="antialiased",
        interpolation_stage="data",
    )


def _draw_contour(sheet: Axes, inside: np.ndarray, frame: Frame, color: str) -> None:
    """Draws the outline of a mask (rows, columns); along the edge where it is cut."""
    rows, columns = inside.shape
    # Centres of the voxels; what lies beyond the slice is drawn into its edge pixels.
    x, y = (
        start + np.clip((np.arange(-1, n + 1) + 0.5) * length / n, 0.5, length - 0.5)
        for start, length, n in zip(frame[:2], frame[2:], (columns, rows), strict=True)
    )
    found = contour_generator(x, y, np.pad(inside, 1).astype(float)).lines(0.5)
    lines = list(map(np.asarray, found))
    drawn = LineCollection(lines, colors=color, linewidths=90 / _DPI)
    sheet.add_collection(drawn, autolim=False)


def _write(sheet: Axes, x: float, y: float, text: str, across: str, down: str) -> None:
    rim = [withStroke(linewidth=2, foreground="black")]
    sheet.text(x, y, text, ha=across, va=down, color="w", size=8, path_effects=rim)


def _save(sheet: Axes, path: Path) -> None:
    """Writes the sheet as a PNG with a palette of its colours, atomically."""
    canvas = FigureCanvasAgg(sheet.get_figure(root=True))
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    with files.replacing(Path(path)) as temporary:
        drawn.quantize(128).save(temporary, "PNG", optimize=True)


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
