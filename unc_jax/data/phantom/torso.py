"""Torso that all slices have: body, fat, muscle, ribs, spine, lungs, bowel."""

import numpy as np

from unc_jax.data.phantom import liver
from unc_jax.data.phantom.field import SmoothField, generator
from unc_jax.data.phantom.patient import Patient
from unc_jax.data.phantom.shape import Box, Points, ellipsoid, ellipsoid_box
from unc_jax.data.phantom.slab import Slab, blend, coverage

_WALL_MM = 12.0
_RIB_PERIOD_MM = 29.0
_VERTEBRA_MM = 33.0


class Torso:
    """Painter of the surroundings of the upper abdomen's organs."""

    def __init__(self, seed: int, index: int, patient: Patient) -> None:
        rng = generator(seed, "torso", index)
        self.patient = patient
        self.loops = SmoothField(rng, 13.0)
        self.filling = SmoothField(rng, 24.0)
        self.marble = SmoothField(rng, 9.0)
        self.belly = float(rng.uniform(0.0, 0.9))  # fat in front, share of the flank's
        self.rib_phase = float(rng.uniform(0, _RIB_PERIOD_MM))
        self.disc_phase = float(rng.uniform(0, _VERTEBRA_MM))
        self.table = float(rng.uniform(6, 20))
        self.gas = float(rng.uniform(1.1, 2.0))

    def paint(self, slab: Slab, inner: np.ndarray) -> np.ndarray:
        """Paints the body wall from the air inwards; `inner`: distance to its inside.

        Returns the grain of the tissue, mean 0, for whatever is painted next.
        """
        x, y, _ = slab.points
        hu = self.patient.hu
        radius = np.hypot(x, y) + np.float32(1)
        front = y / radius
        fat = np.float32(self.patient.fat_mm) * (
            1 + np.float32(self.belly) * np.maximum(front, 0) ** 2
        )
        fat *= 1 - np.float32(0.45) * np.maximum(-front, 0) ** 3
        wall = inner - np.float32(_WALL_MM) - self._back(x, y)
        skin = wall - fat
        self._table(slab)
        slab.paint(skin, 20.0)
        slab.paint(skin + 2.5, hu["fat"])
        grain = self.marble.on(slab.x, slab.y, slab.z)
        slab.paint(wall, hu["muscle"] + 6 * grain)
        self._muscle_planes(slab, inner, wall, hu["fat"])
        slab.paint(inner, hu["fat"] + 4 * grain)
        self._bowel(slab, inner, grain)
        return grain

    def lungs(
        self,
        slab: Slab,
        inner: np.ndarray,
        grain: np.ndarray,
        organ: np.ndarray | None,
    ) -> None:
        """Paints air above the diaphragm and in the recess between it and the ribs."""
        points = slab.points
        if float(points.z.max()) < -90:
            return
        over = points.z - liver.diaphragm(points, self.patient.shape)
        middle = 30 - np.abs(points.x + np.float32(6))
        middle = np.minimum(middle, points.y + np.float32(64))
        d = np.maximum(np.maximum(inner + 3, -over), middle)
        d = np.maximum(d, np.float32(-75) - points.z)
        if organ is not None:
            d = np.maximum(d, 3 - organ)
        vessels = np.maximum(grain - np.float32(1.1), 0) * 420
        slab.paint(d, self.patient.hu["lung"] + 12 * grain + vessels, 1.5)

    def bones(self, slab: Slab, inner: np.ndarray) -> None:
        self._ribs(slab, inner)
        back = slab.within(Box((-75.0, -130.0, -900.0), (75.0, -5.0, 900.0)))
        if back is not None:
            self._spine(back)
        self._pelvis(slab)

    def _table(self, slab: Slab) -> None:
        reach = liver.CAVITY[1] + _WALL_MM + self.patient.fat_mm + self.table
        curve = slab.y[:, None] + reach - 0.0011 * np.square(slab.x)[None]
        d = np.abs(curve - 4).astype(np.float32) - np.float32(1.2)
        d = np.maximum(d, np.abs(slab.x)[None].astype(np.float32) - 190)
        blend(
            slab.hu,
            np.broadcast_to(coverage(d, slab.width_mm), slab.hu.shape) * 1,
            60.0,
        )

    def _back(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Returns the extra thickness of the wall over the back muscles, mm."""
        behind = np.clip((-y - 20) / 60, 0, 1)
        return 22 * behind * np.exp(-np.square(np.square(x / 72)))

    def _muscle_planes(
        self, slab: Slab, inner: np.ndarray, wall: np.ndarray, fat: float
    ) -> None:
        # Three layers of muscle with fat between them; only fat people show it.
        if self.patient.fat_mm < 10:
            return
        middle = np.abs((inner + wall) * np.float32(0.5)) - np.float32(0.8)
        blend(slab.hu, coverage(middle, slab.width_mm) * np.float32(0.6), fat)

    def _bowel(self, slab: Slab, inner: np.ndarray, grain: np.ndarray) -> None:
        """Paints loops below the organs, fat between them; contents or gas."""
        top = 10.0
        window = slab.window(Box((-145.0, -50.0, -900.0), (145.0, 110.0, top)))
        if window is None:
            return
        low, inner, grain = slab.crop(window), inner[window], grain[window]
        loops = self.loops.on(low.x, low.y, low.z)
        filling = self.filling.on(low.x, low.y, low.z)
        x, y, z = low.points
        lean = np.float32(1 - self.patient.visceral_fat)
        level = np.float32(0.5) - lean * np.float32(0.8)
        d = (level - loops) * 9
        rim = inner + 5
        back = -np.float32(25) - y + 14 * np.abs(x) / 100
        d = np.maximum(
            np.maximum(d, rim),
            np.maximum(back, z - np.float32(top) - y * np.float32(0.2)),
        )
        low.paint(d, self.patient.hu["bowel"] + 10 * grain, 2.0)
        inside = np.where(
            filling > self.gas, np.float32(-850), self.patient.hu["lumen"]
        )
        inside = np.where(filling < -0.3, self.patient.hu["bowel"], inside)
        low.paint(d + 7, inside, 2.0)

    def _ribs(self, slab: Slab, inner: np.ndarray) -> None:
        x, y, z = slab.points
        height = z - np.float32(0.62) * y + np.float32(self.rib_phase)
        period = np.float32(_RIB_PERIOD_MM)
        along = height - period * np.round(height / period)
        depth = inner - np.float32(4.5)
        d = np.hypot(along * np.float32(0.62), depth) - np.float32(4.2)
        margin = np.float32(-120) + np.float32(0.95) * (y + 90) - z
        d = np.maximum(d, margin * np.float32(0.7))
        d = np.maximum(d, 18 - np.abs(x))
        slab.paint(d, 420.0)
        slab.paint(d + 2.2, 230.0)

    def _spine(self, slab: Slab) -> None:
        hu = self.patient.hu
        x, y, z = slab.points
        side = np.abs(x)
        muscle = np.hypot((side - 33) / 1.35, (y + 88) / 0.95) - 18
        slab.paint(muscle, hu["muscle"] - 4, 2.0)
        lower = np.clip((-z - 40) / 120, 0, 1) * 13
        psoas = np.hypot(side - 30 - lower, (y + 50) / 1.2) - 8 - lower
        slab.paint(np.maximum(psoas, z + 40), hu["muscle"])
        phase = (z + np.float32(self.disc_phase)) / np.float32(_VERTEBRA_MM)
        disc = np.abs(phase - np.round(phase)) * np.float32(_VERTEBRA_MM) - 4
        waist = 2.2 * np.clip(disc / 12, 0, 1)
        body = np.hypot(x / 1.3, y + 44) - 18 + waist
        slab.paint(body, 100.0)
        bone = np.maximum(body, -disc)
        slab.paint(bone, 390.0)
        slab.paint(bone + 2.6, 190 + 18 * self.marble.on(slab.x, slab.y, slab.z))
        arch = np.abs(np.hypot(x / 1.15, y + 72) - 11) - 3.2
        arch = np.maximum(arch, y + 62)
        wing = np.maximum(np.abs(y + 73 + 0.25 * side) - 3.5, side - 38)
        spinous = np.maximum(np.hypot(x, 0) - 3.2, np.maximum(y + 78, -y - 108))
        step = np.maximum(-disc - 2, 10 - side)
        d = np.minimum(
            arch, np.maximum(np.minimum(spinous, np.maximum(wing, step)), -disc - 3)
        )
        canal = np.hypot(x / 1.15, y + 72) - 8
        slab.paint(np.maximum(d, -canal), 330.0)
        slab.paint(canal, 30.0)

    def _pelvis(self, slab: Slab) -> None:
        for side in (-1.0, 1.0):
            centre, radii = (side * 92.0, -18.0, -290.0), (48.0, 62.0, 85.0)
            part = slab.within(ellipsoid_box(centre, radii, 5))
            if part is None:
                continue
            p = part.points
            shell = np.abs(ellipsoid(Points(p.x, p.y, p.z), centre, radii)) - 5
            d = np.maximum(shell, np.float32(side) * (centre[0] - p.x) - 5)
            part.paint(d, 380.0)
            part.paint(d + 2.5, 170.0)
