"""Which slices of a case to show, and how a slice lies on the screen.

Arrays are canonical (x, y, z) in RAS+ order. Slices are shown as radiologists look at
them: the patient's right, or front, on the left; front, or head, up.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

_MARGIN_MM = 25.0  # of surroundings shown around the organ
_NEAR_MM = 10.0  # around the organ, where uncertainty counts
# View: the array's axes that run across and down, and what lies left and right.
_VIEWS = {"axial": (0, 1, "RL"), "coronal": (0, 2, "RL"), "sagittal": (1, 2, "AP")}

Box = tuple[slice, slice, slice]


class Slices(NamedTuple):
    """Indices in the canonical grid: z, y, x of most uncertainty, z of most organ."""

    axial: int
    coronal: int
    sagittal: int
    largest: int


def surroundings(
    mask: np.ndarray, reference: np.ndarray | None, spacing_mm: tuple[float, ...]
) -> Box:
    """The box of mask and reference and a margin; all of the grid if both are empty."""
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
    """The slices to show, indices of the whole grid; ties go to the lower index.

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
    """The organ and a margin of voxels along some axes; all if there is no organ."""
    if not organ.any():
        return ~organ
    near = organ.view(np.uint8)
    for axis, reach in reaches.items():
        near = ndimage.maximum_filter1d(near, 2 * reach + 1, axis, mode="constant")
    return near != 0


class Plane(NamedTuple):
    """One slice of a box of the volume; `pixels` are the box's sides on the screen."""

    view: str
    index: int
    box: Box
    pixels: tuple[float, ...]

    @property
    def sides(self) -> str:
        return _VIEWS[self.view][2]

    @property
    def depth(self) -> int:
        across, down, _ = _VIEWS[self.view]
        return 3 - across - down

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The slice in screen order (rows, columns), voxel by voxel."""
        place: list[slice | int] = list(self.box)
        place[self.depth] = self.index
        # x and y grow to the patient's right and front, z to the head.
        return array[tuple(place)].T[::-1, ::-1]

    def resized(self, plane: np.ndarray) -> np.ndarray:
        across, down, _ = _VIEWS[self.view]
        size = tuple(max(round(self.pixels[axis]), 1) for axis in (across, down))
        picture = Image.fromarray(np.ascontiguousarray(plane, np.float32))
        # Of what is made smaller Pillow takes a weighted mean, not every other voxel.
        return np.asarray(picture.resize((size[0], size[1]), Image.Resampling.BILINEAR))

    def mask(self, array: np.ndarray | None) -> np.ndarray | None:
        """Where the mask is on the screen; a sliver that vanishes is drawn larger."""
        if array is None:
            return None
        share = self.resized(self.cut(array) != 0)
        return share >= min(0.5, max(float(share.max()), 1e-6))

    def levels(
        self, array: np.ndarray, low: float, high: float, count: int
    ) -> np.ndarray:
        """Values from low to high as levels 0 ... count - 1, uint8."""
        plane = np.asarray(self.cut(array), np.float32)
        plane = np.where(np.isfinite(plane), plane, np.float32(low))
        share = np.clip((self.resized(plane) - low) / (high - low), 0.0, 1.0)
        return np.rint(share * (count - 1)).astype(np.uint8)
