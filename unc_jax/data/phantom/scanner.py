"""Sampling of a patient on a grid, plane by plane: image, label and raters."""

import numpy as np

from unc_jax.data.phantom import liver, protocol
from unc_jax.data.phantom.field import SmoothField, generator
from unc_jax.data.phantom.grid import Grid
from unc_jax.data.phantom.lesion import Lesion
from unc_jax.data.phantom.mask import Mask
from unc_jax.data.phantom.noise import Noise
from unc_jax.data.phantom.organs import Organs
from unc_jax.data.phantom.patient import Patient
from unc_jax.data.phantom.raters import Rater, beyond
from unc_jax.data.phantom.shape import Points, ellipsoid_box, tube
from unc_jax.data.phantom.slab import Slab, Window, blend, coverage
from unc_jax.data.phantom.torso import Torso

_SLAB_VOXELS = 1 << 21
_THICK_MM = 2.6  # thicker slices are averaged from several planes


class Scanner:
    """Scanner of one patient, whose fields every slab shares."""

    def __init__(
        self,
        seed: int,
        index: int,
        patient: Patient,
        grid: Grid,
        raters: int,
        mask: Mask | None = None,
    ) -> None:
        rng = generator(seed, "scanner", index)
        self.patient, self.grid, self.mask = patient, grid, mask
        self.bend = [SmoothField(rng, 70.0) for _ in range(3)]
        self.liver_bend = SmoothField(rng, 34.0)
        self.liver_grain = SmoothField(rng, 16.0)
        self.lobes = SmoothField(rng, 11.0)
        self.dose = SmoothField(rng, 90.0)
        self.torso = Torso(seed, index, patient)
        self.organs = Organs(seed, index, patient)
        # Number 0 is the reference annotation.
        self.raters = [Rater(seed, index, k, patient) for k in range(raters + 1)]
        self.noise = Noise(generator(seed, "noise", index), grid, patient.protocol)

    def scan(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns image int16 (z, y, x) and annotations uint8 (raters + 1, z, y, x)."""
        x, y, z = self.grid.shape
        image = np.empty((z, y, x), np.int16)
        labels = np.zeros((len(self.raters), z, y, x), np.uint8)
        fine = max(1, round(self.grid.spacing[2] / _THICK_MM))
        depth = max(1, _SLAB_VOXELS // (x * y * fine))
        for start in range(0, z, depth):
            planes = slice(start, min(start + depth, z))
            hu = self._slab(planes, fine, labels[:, planes])
            image[planes] = self._measure(hu, planes)
        return image, labels

    def _slab(self, planes: slice, fine: int, labels: np.ndarray) -> np.ndarray:
        x, y, z = (self.grid.axis(number) for number in range(3))
        step = self.grid.spacing[2]
        parts = (np.arange(fine) + 0.5) / fine - 0.5
        z = (z[planes, None] + step * parts).ravel()
        z = protocol.shifted(self.patient.protocol, z)
        sx, sy, sz = self.patient.scale
        x, y, z = x / sx, y / sy, z / sz
        shape = (len(z), len(y), len(x))
        width = float(np.hypot(self.grid.spacing[0], self.patient.protocol.blur_mm))
        bent = (5.0 * field.on(x, y, z) for field in self.bend)
        moved = (
            (x[None, None] + next(bent)).astype(np.float32),
            (y[None, :, None] + next(bent)).astype(np.float32),
            (z[:, None, None] + next(bent)).astype(np.float32),
        )
        hu = np.full(shape, np.float32(-1000))
        slab = Slab(x, y, z, Points(*moved), hu, width)
        window, organ = self._liver_distance(slab, planes, fine)
        inner = liver.cavity(slab.points)
        if self.mask is not None and organ is not None:
            # A real liver may need more room than the drawn body gives.
            inner = np.minimum(inner, organ + 4)
        grain = self.torso.paint(slab, inner)
        self.torso.lungs(slab, inner, grain, organ)
        self.organs.paint_behind(slab)
        self.torso.bones(slab, inner)
        if window is not None and organ is not None:
            self._liver(slab.crop(window), organ[window], fine, labels, window)
        self.organs.paint_front(slab)
        return hu.reshape(-1, fine, *shape[1:]).mean(1) if fine > 1 else hu

    def _liver_distance(
        self, slab: Slab, planes: slice, fine: int
    ) -> tuple[Window | None, np.ndarray | None]:
        """Returns the liver's box in this slab, and its distance in the whole slab."""
        whole = np.full(slab.hu.shape, np.float32(60))
        if self.mask is not None:
            columns, rows, heights = self.mask.window
            first, last = (
                max(heights.start, planes.start),
                min(heights.stop, planes.stop),
            )
            if first >= last:
                return None, None
            d = self.mask.distance[first - heights.start : last - heights.start]
            d = d / np.float32(np.mean(self.patient.scale))
            first, last = first - planes.start, last - planes.start
            window = slice(first * fine, last * fine), rows, columns
            whole[window] = np.repeat(d, fine, axis=0)
            return window, whole
        window = slab.window(liver.LIVER_BOX, fine)
        if window is None:
            return None, None
        part = slab.crop(window)
        d = liver.distance(part.points, self.patient.shape)
        whole[window] = d + np.float32(2.2) * self.liver_bend.on(part.x, part.y, part.z)
        return window, whole

    def _liver(self, part: Slab, d: np.ndarray, fine: int, labels, window) -> None:
        hu = self.patient.hu
        width = self.patient.ambiguity.width(part.points)
        tissue = hu["liver"] + 4 * self.liver_grain.on(part.x, part.y, part.z)
        tissue = tissue.astype(np.float32)
        inside = part._replace(hu=tissue)
        for tree in self.patient.vessels:
            for segment in tree.segments:
                near = inside.within(segment.box)
                if near is not None:
                    near.paint(tube(near.points, segment), hu[tree.kind])
        edge = np.sqrt(np.square(np.float32(part.width_mm)) + np.square(1.3 * width))
        share = coverage(d, edge)
        for place in self.patient.ambiguity.parts:
            # The end that not all include is seen as through a thick slice.
            share *= 1 - np.float32(0.5) * coverage(6 - beyond(place, part.points), 16)
        blend(part.hu, share, tissue)
        for cyst in self.patient.cysts:
            self._cyst(part, d, cyst)
        found = [self._tumour(part, d, lesion, fine) for lesion in self.patient.tumours]
        self._annotate(part, d, width, found, fine, labels, window)

    def _cyst(self, part: Slab, d: np.ndarray, cyst: Lesion) -> None:
        window = part.window(ellipsoid_box(cyst.centre, cyst.radii, 3))
        if window is not None:
            near = part.crop(window)
            edge = cyst.distance(near.points, np.zeros((), np.float32))
            near.paint(np.maximum(edge, d[window]), self.patient.hu["bile"])

    def _tumour(self, part: Slab, d: np.ndarray, lesion: Lesion, fine: int):
        """Paints one tumour; returns its window in the liver's box and distance."""
        window = part.window(ellipsoid_box(lesion.centre, lesion.radii, 6), fine)
        if window is None:
            return None
        near = part.crop(window)
        uneven = self.lobes.on(near.x, near.y, near.z)
        edge = lesion.distance(near.points, uneven)
        base = self.patient.hu["liver"] + lesion.contrast_hu
        value = base + np.float32(0.12 * abs(lesion.contrast_hu)) * uneven
        if lesion.rim_hu:
            value += np.float32(lesion.rim_hu) * np.exp(-np.square(edge + 1.5) / 6)
        if lesion.core_hu:
            core = coverage(edge + 0.45 * lesion.radius + 2 * uneven, 4.0)
            value += core * np.float32(lesion.core_hu)
        # Outside the liver it bulges by about half its radius and no more.
        visible = np.maximum(edge, d[window] - np.float32(0.35 * lesion.radius))
        near.paint(visible, value, 1.6 * lesion.ambiguity_mm)
        return window, visible

    def _annotate(self, part: Slab, d, width, tumours, fine, labels, window) -> None:
        def flat(values: np.ndarray) -> np.ndarray:
            # One value per slice: the mean over the planes it was averaged from.
            if fine == 1:
                return values
            return values.reshape(-1, fine, *values.shape[1:]).mean(1)

        d, width = flat(d), flat(width)
        planes = [
            flat(beyond(place, part.points)) for place in self.patient.ambiguity.parts
        ]
        flattened = []
        for found in tumours:
            if found is None:
                flattened.append(None)
                continue
            place, distance = found
            thin = slice(place[0].start // fine, place[0].stop // fine)
            flattened.append(((thin, *place[1:]), flat(distance)))
        z = part.z.reshape(-1, fine).mean(1)
        rows = slice(window[0].start // fine, window[0].stop // fine)
        for number, rater in enumerate(self.raters):
            if number == 0 and self.mask is not None:
                offsets = np.zeros_like(d)  # the mask is the reference as it is
            else:
                offsets = rater.field.on(part.x, part.y, z)
            drawn = rater.annotate(d, width, flattened, planes, offsets, self.patient)
            labels[number, rows, window[1], window[2]] = drawn

    def _measure(self, hu: np.ndarray, planes: slice) -> np.ndarray:
        """Adds noise and what lies outside the measured circle; int16."""
        x, y, z = (self.grid.axis(number) for number in range(3))
        scan = self.patient.protocol
        x, y = x - scan.centre_mm[0], y - scan.centre_mm[1]
        dose = self.dose.on(x, y, z[planes])
        hu = hu + self.noise.planes(len(hu)) * (1 + np.float32(0.15) * dose)
        np.clip(np.rint(hu, out=hu), -1024, 3071, out=hu)
        if scan.round_view:
            outside = np.hypot(x[None], y[:, None]) > scan.fov_mm / 2
            hu[:, outside] = scan.padding_hu
        return hu.astype(np.int16)
