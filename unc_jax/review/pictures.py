"""Pictures of cases: four slices of the scan above, of the uncertainty below.

Arrays are canonical (x, y, z) in RAS+ order. Slices lie as radiologists look at them:
the patient's right, or front, on the left; front, or head, up. Panels of a picture have
one scale in mm; a colour of the uncertainty means the same value in every picture.
"""

from pathlib import Path

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

from unc_jax.data import files
from unc_jax.data.preprocess import Box
from unc_jax.review.slices import choose_slices, surroundings
from unc_jax.study.figures import MAX_UNCERTAINTY

WINDOW_HU = (-120.0, 240.0)
MASK_COLOR, REFERENCE_COLOR = "#00e5ff", "#7cfc5a"

# View: array axes across and down, and what lies left and right.
_VIEWS = {"axial": (0, 1, "RL"), "coronal": (0, 2, "RL"), "sagittal": (1, 2, "AP")}
# Pixels: longest side of a panel, narrowest column, between columns, of titles, of the
# colour bar; dots per inch only scale the letters.
_PANEL, _NARROWEST, _GAP, _HEADER, _LEGEND, _DPI = 180, 84, 12, 17, 44, 100
# What lies between few levels is noise, and costs bytes.
_GRAYS = matplotlib.colormaps["gray"].resampled(32)
_COLORS = matplotlib.colormaps["inferno"].resampled(48)

Limits = tuple[float, float]  # the values of the first and the last colour
Frame = tuple[float, float, float, float]  # left, top, width, height


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
    below = _HEADER + height + _GAP // 2
    sheet = _sheet(sum(widths) + 4 * _GAP + _LEGEND, below + height)
    rows = (
        (_HEADER, image, _GRAYS, window),
        (below, uncertainty, _COLORS, (0.0, uncertainty_max)),
    )
    masks = [(mask, MASK_COLOR)]
    if reference is not None:
        masks.insert(0, (reference, REFERENCE_COLOR))
    left = 0
    for view, index, width in zip(views, chosen, widths, strict=True):
        across, down, _ = _VIEWS[view]
        for top, array, colors, limits in rows:
            inset = (width - sides[across]) // 2, (height - sides[down]) // 2
            frame = left + inset[0], top + inset[1], sides[across], sides[down]
            _draw_slice(sheet, cut(array, view, index, box), frame, colors, limits)
            for shown, color in masks:
                inside = cut(shown, view, index, box) != 0
                _draw_contour(sheet, inside, frame, color)
        title = f"{view} {index + 1}/{image.shape[3 - across - down]}"
        _name_panel(sheet, view, title, (left, _HEADER, width, height))
        left += width + _GAP
    _draw_scale(sheet, (left, below, _LEGEND, height), uncertainty_max)
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


def _name_panel(sheet: Axes, view: str, title: str, frame: Frame) -> None:
    """Writes the title above a panel, and what lies left and right in it."""
    left, top, width, height = frame
    letters, half = _VIEWS[view][2], top + height / 2
    _write(sheet, left + width / 2, 2, title, "center", "top")
    _write(sheet, left + 3, half, letters[0], "left", "center")
    _write(sheet, left + width - 3, half, letters[1], "right", "center")


def _draw_scale(sheet: Axes, frame: Frame, largest: float) -> None:
    """Draws the colours of the uncertainty, 0 to `largest` nats."""
    left, top, _, height = frame
    ramp = np.linspace(1, 0, _COLORS.N)[:, None]
    _draw_slice(sheet, ramp, (left + 2, top, 8, height), _COLORS, (0, 1))
    for down, text, place in ((0, f"{largest:.2f}", "top"), (0.5, "nats", "center")):
        _write(sheet, left + 13, top + down * height, text, "left", place)
    _write(sheet, left + 13, top + height, "0", "left", "bottom")


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
