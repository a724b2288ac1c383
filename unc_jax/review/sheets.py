"""Black sheets on which pictures are drawn, in pixels from the left and the top."""

from pathlib import Path

import numpy as np
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import Colormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from PIL import Image

from unc_jax.data import files

_DPI = 100  # scales the letters alone

Limits = tuple[float, float]  # the values of the first and the last colour
Frame = tuple[float, float, float, float]  # left, top, width, height


def new_sheet(width: int, height: int) -> Axes:
    """Returns black axes whose coordinates are pixels from the left and the top."""
    inches = width / _DPI, height / _DPI
    figure = Figure(inches, dpi=_DPI, facecolor="black")  # type: ignore[arg-type]
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(height, 0))
    axes.autoscale(False)
    return axes


def draw_slice(
    sheet: Axes, values: np.ndarray, frame: Frame, colors: Colormap, limits: Limits
) -> None:
    """Draws values (rows, columns) into a frame; those not finite as the lower limit.

    limits: values of the first and the last colour.
    """
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


def draw_contour(sheet: Axes, inside: np.ndarray, frame: Frame, color: str) -> None:
    """Draws the outline of a mask (rows, columns); along the edge where it is cut."""
    rows, columns = inside.shape
    # Centres of the voxels; what lies beyond the slice is drawn into its edge pixels.
    x, y = (
        start + np.clip((np.arange(-1, n + 1) + 0.5) * length / n, 0.5, length - 0.5)
        for start, length, n in zip(frame[:2], frame[2:], (columns, rows), strict=True)
    )
    found = contour_generator(x, y, np.pad(inside, 1).astype(float)).lines(0.5)
    draw_lines(sheet, list(map(np.asarray, found)), color)


def draw_lines(sheet: Axes, lines: list[np.ndarray], color: str) -> None:
    drawn = LineCollection(lines, colors=color, linewidths=90 / _DPI)
    sheet.add_collection(drawn, autolim=False)


def write(sheet: Axes, x: float, y: float, text: str, across: str, down: str) -> None:
    rim = [withStroke(linewidth=2, foreground="black")]
    sheet.text(x, y, text, ha=across, va=down, color="w", size=8, path_effects=rim)


def blends(color: str, below: np.ndarray) -> np.ndarray:
    """Returns a line's colour over others (m, 3), at each of four shares, 0 ... 1."""
    shares = np.array((0.25, 0.5, 0.75, 1.0))[:, None, None]
    return (shares * to_rgb(color) + (1 - shares) * below).reshape(-1, 3)


def save(sheet: Axes, path: Path, palette: np.ndarray) -> None:
    """Writes the sheet as a PNG in the colours (m, 3) of a palette, atomically."""
    canvas = FigureCanvasAgg(sheet.get_figure(root=True))
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    colors = Image.new("P", (1, 1))
    colors.putpalette(np.rint(255 * palette).astype(np.uint8).tobytes())
    with files.replacing(Path(path)) as temporary:
        few = drawn.quantize(palette=colors, dither=Image.Dither.NONE)
        few.save(temporary, "PNG", optimize=True)
