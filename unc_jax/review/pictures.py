"""One small PNG of a case: four slices of the scan above, of the uncertainty below.

Arrays are canonical (x, y, z) in RAS+ order, slices lie as radiologists look at them
(see `slices`). All panels of a picture have one scale in mm. Colours come from one
palette, so that a colour of the uncertainty map means the same value everywhere.
"""

import io
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unc_jax.data import files
from unc_jax.review.slices import Plane, choose_slices, surroundings
from unc_jax.study.figures import MAX_UNCERTAINTY

WINDOW_HU = (-120.0, 240.0)

_PANEL = 180  # longest side of a panel, pixels
_GAP, _HEADER, _LEGEND, _NARROWEST = 12, 17, 44, 84
# Few grey levels: what lies between two of them is noise, and costs bytes.
_GRAYS, _COLORS = 32, 48
_MASK, _REFERENCE = _GRAYS + _COLORS, _GRAYS + _COLORS + 1
MASK_COLOR, REFERENCE_COLOR = (0, 229, 255), (124, 252, 90)


def write_picture(
    path: Path,
    image: np.ndarray,
    mask: np.ndarray,
    uncertainty: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    reference: np.ndarray | None = None,
    window: tuple[float, float] = WINDOW_HU,
    uncertainty_max: float = MAX_UNCERTAINTY,
) -> None:
    """Writes `thumbnails` of a case to `path` (.png), atomically."""
    content = thumbnails(
        image,
        mask,
        uncertainty,
        spacing_mm,
        reference=reference,
        window=window,
        uncertainty_max=uncertainty_max,
    )
    with files.replacing(Path(path)) as temporary:
        temporary.write_bytes(content)


def thumbnails(
    image: np.ndarray,
    mask: np.ndarray,
    uncertainty: np.ndarray,
    spacing_mm: tuple[float, float, float],
    *,
    reference: np.ndarray | None = None,
    window: tuple[float, float] = WINDOW_HU,
    uncertainty_max: float = MAX_UNCERTAINTY,
) -> bytes:
    """A PNG of at most about 800 x 380 pixels, some tens of kB, of one case.

    Four columns: the axial, coronal and sagittal slice of the greatest uncertainty
    around the organ, and the axial slice where the organ is largest. Above, the scan
    between the two values of `window` with the contour of the mask (and, in another
    colour, of the reference); below, the uncertainty from 0 to
    uncertainty_max.
    Everything is cut to the organ and 25 mm around it; an empty mask shows all.

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
    shown = ("axial", "coronal", "sagittal", "axial")
    columns = []
    for view, index in zip(shown, chosen, strict=True):
        plane = Plane(
            view, index, box, tuple(_PANEL * s / max(sides_mm) for s in sides_mm)
        )
        outlines = _contours(plane.mask(mask), plane.mask(reference))
        scan = plane.levels(image, *window, _GRAYS)
        heat = plane.levels(uncertainty, 0.0, uncertainty_max, _COLORS) + _GRAYS
        title = f"{view} {index + 1}/{image.shape[plane.depth]}"
        panels = _drawn(scan, outlines), _drawn(heat, outlines)
        columns.append(_Column(title, plane.sides, *panels))
    return _png(_sheet(columns, uncertainty_max))


class _Column(NamedTuple):
    title: str
    sides: str  # the letters left and right
    scan: np.ndarray
    heat: np.ndarray


def _contours(*masks: np.ndarray | None) -> list[tuple[np.ndarray, int]]:
    # The reference first, so that the mask's own contour lies on top.
    drawn = []
    for inside, color in zip(masks[::-1], (_REFERENCE, _MASK), strict=True):
        if inside is not None:
            around = np.pad(inside, 1)
            core = around[:-2, 1:-1] & around[2:, 1:-1]
            core &= around[1:-1, :-2] & around[1:-1, 2:]
            drawn.append((inside & ~core, color))
    return drawn


def _drawn(levels: np.ndarray, outlines: list[tuple[np.ndarray, int]]) -> np.ndarray:
    drawn = levels.copy()
    for outline, color in outlines:
        drawn[outline] = color
    return drawn


def _sheet(columns: list[_Column], uncertainty_max: float) -> np.ndarray:
    """Panels on black, palette indices (rows, columns)."""
    widths = [max(column.scan.shape[1], _NARROWEST) for column in columns]
    height = max(column.scan.shape[0] for column in columns)
    below = _HEADER + height + _GAP // 2
    sheet = np.zeros((below + height, sum(widths) + 4 * _GAP + _LEGEND), np.uint8)
    left = 0
    for (title, sides, scan, heat), width in zip(columns, widths, strict=True):
        inset = left + (width - scan.shape[1]) // 2
        for top, panel in ((_HEADER, scan), (below, heat)):
            row = top + (height - panel.shape[0]) // 2
            sheet[row : row + panel.shape[0], inset : inset + panel.shape[1]] = panel
        _write(sheet, title, left + width // 2, 1, "ma")
        _write(sheet, sides[0], left + 3, _HEADER + height // 2, "lm")
        _write(sheet, sides[1], left + width - 3, _HEADER + height // 2, "rm")
        left += width + _GAP
    _color_bar(sheet[below:, left:], uncertainty_max)
    return sheet


def _color_bar(corner: np.ndarray, uncertainty_max: float) -> None:
    height = corner.shape[0]
    ramp = np.linspace(_GRAYS + _COLORS - 1, _GRAYS, height).astype(np.uint8)
    corner[:, 2:10] = ramp[:, None]
    _write(corner, f"{uncertainty_max:.2f}", 13, 0, "la")
    _write(corner, "nats", 13, height // 2, "lm")
    _write(corner, "0", 13, height - 1, "ls")


def _write(sheet: np.ndarray, text: str, x: int, y: int, anchor: str) -> None:
    """White letters with a black rim, as grey levels of the palette."""
    layers = []
    for rim in (2, 0):
        layer = Image.new("L", (sheet.shape[1], sheet.shape[0]))
        ImageDraw.Draw(layer).text(
            (x, y), text, 255, _FONT, anchor=anchor, stroke_width=rim
        )
        layers.append(np.asarray(layer))
    rim, letters = layers
    sheet[rim > 100] = 0
    lit = letters > 60
    sheet[lit] = np.rint(letters[lit] / 255.0 * (_GRAYS - 1))


def _palette() -> bytes:
    grays = np.repeat(np.linspace(0, 255, _GRAYS)[:, None], 3, axis=1)
    colors = matplotlib.colormaps["inferno"](np.linspace(0, 1, _COLORS))[:, :3] * 255
    own = np.array([MASK_COLOR, REFERENCE_COLOR])
    return np.rint(np.concatenate([grays, colors, own])).astype(np.uint8).tobytes()


def _png(sheet: np.ndarray) -> bytes:
    picture = Image.fromarray(sheet)
    picture.putpalette(_palette())
    content = io.BytesIO()
    picture.save(content, "PNG", optimize=True)
    return content.getvalue()


_FONT = ImageFont.load_default(12)
