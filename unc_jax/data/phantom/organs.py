"""Organs of the upper abdomen around the liver, painted from back to front."""

import numpy as np

from unc_jax.data.phantom import liver
from unc_jax.data.phantom.field import SmoothField, generator
from unc_jax.data.phantom.patient import Patient
from unc_jax.data.phantom.shape import (
    Box,
    Segment,
    Vector,
    ellipsoid,
    ellipsoid_box,
    smooth_union,
    tube,
)
from unc_jax.data.phantom.slab import Slab

_GAS_HU = -900.0


class Organs:
    """Heart, spleen, kidneys, stomach, pancreas, gallbladder, colon, great vessels."""

    def __init__(self, seed: int, index: int, patient: Patient) -> None:
        rng = generator(seed, "organs", index)
        u = rng.uniform
        self.patient = patient
        self.grain = SmoothField(rng, 12.0)
        self.uneven = SmoothField(rng, 28.0)
        top = patient.shape.left_top
        self.spleen: tuple[Vector, Vector] = (
            (float(u(-96, -86)), float(u(-40, -26)), top - float(u(48, 66))),
            (float(u(24, 38)), float(u(42, 60)), float(u(42, 62))),
        )
        right, radii = patient.shape.kidney
        self.kidneys = (
            (right, radii),
            ((float(u(-64, -54)), right[1] - 2, right[2] + float(u(8, 26))), radii),
        )
        self.heart: Vector = (
            float(u(-32, -18)),
            float(u(22, 36)),
            top + float(u(20, 32)),
        )
        self.gas_level = float(u(0.1, 0.9))  # height of the stomach's gas, share
        self.bladder: tuple[Vector, Vector] = (
            (float(u(28, 46)), float(u(26, 44)), float(u(-62, -40))),
            (float(u(10, 17)), float(u(10, 17)), float(u(18, 32))),
        )
        self.has_bladder = bool(rng.random() < 0.85)
        self.colon = _colon(rng)

    def paint_behind(self, slab: Slab) -> None:
        """Paints the organs that the liver is laid over."""
        self._colon(slab)
        self._pancreas(slab)
        self._spleen(slab)
        self._kidneys(slab)
        self._stomach(slab)
        self._heart(slab)

    def paint_front(self, slab: Slab) -> None:
        """Paints vessels and gallbladder, which lie in grooves of the liver."""
        hu = self.patient.hu
        for start, end, radius, tissue in (
            ((-13.0, -16.0, -250.0), (-15.0, -22.0, 250.0), 10.5, "aorta"),
            ((22.0, -16.0, -250.0), (24.0, -28.0, 95.0), 11.0, "cava"),
            ((-12.0, 2.0, -190.0), (2.0, -6.0, -44.0), 6.0, "portal"),
            ((0.0, -6.0, -44.0), (-70.0, -22.0, 5.0), 4.5, "portal"),
            ((-14.0, -10.0, -20.0), (20.0, 4.0, -12.0), 3.0, "aorta"),
        ):
            segment = Segment(start, end, radius, radius)
            part = slab.within(segment.box)
            if part is not None:
                part.paint(tube(part.points, segment), hu[tissue])
        if self.has_bladder:
            part = slab.within(ellipsoid_box(*self.bladder, 4))
            if part is not None:
                d = ellipsoid(part.points, *self.bladder)
                part.paint(d - 1.5, hu["muscle"])
                part.paint(d, hu["bile"])

    def _spleen(self, slab: Slab) -> None:
        part = slab.within(ellipsoid_box(*self.spleen, 4))
        if part is None:
            return
        d = ellipsoid(part.points, *self.spleen)
        d += 3.5 * self.uneven.on(part.x, part.y, part.z)
        d = np.maximum(d, liver.cavity(part.points) + 4)
        roof = part.points.z - liver.diaphragm(part.points, self.patient.shape)
        d = np.maximum(d, (roof + 4) * np.float32(0.85))
        mottled = 28 if self.patient.protocol.phase == "arterial" else 3
        grain = self.grain.on(part.x, part.y, part.z)
        part.paint(d, self.patient.hu["spleen"] + mottled * grain)

    def _kidneys(self, slab: Slab) -> None:
        hu = self.patient.hu
        for centre, radii in self.kidneys:
            part = slab.within(ellipsoid_box(centre, radii, 6))
            if part is None:
                continue
            d = ellipsoid(part.points, centre, radii)
            part.paint(d - 4, hu["fat"], 3.0)
            grain = self.grain.on(part.x, part.y, part.z)
            part.paint(d + 2 * grain, hu["cortex"])
            part.paint(d + 8 + 4 * grain, hu["medulla"])
            side = 1.0 if centre[0] > 0 else -1.0
            sinus = (centre[0] - side * 14, centre[1] + 6, centre[2])
            hollow = ellipsoid(part.points, sinus, (15.0, 9.0, radii[2] * 0.5))
            part.paint(hollow + 3 * grain, hu["fat"] + 20)

    def _stomach(self, slab: Slab) -> None:
        centre, radii = self.patient.shape.stomach
        box = Box((-115.0, -60.0, -80.0), (45.0, 105.0, 90.0))
        part = slab.within(box)
        if part is None:
            return
        d = ellipsoid(part.points, centre, radii)
        body = Segment(
            (centre[0], centre[1] + 12, centre[2] - 10),
            (centre[0] + 38, 48.0, -38.0),
            radii[0] * 0.75,
            18.0,
        )
        antrum = Segment(body.end, (26.0, 30.0, -36.0), 18.0, 12.0)
        d = smooth_union(d, tube(part.points, body), 16.0)
        d = smooth_union(d, tube(part.points, antrum), 10.0)
        d += 4 * self.uneven.on(part.x, part.y, part.z)
        d = np.maximum(d, liver.cavity(part.points) + 4)
        grain = self.grain.on(part.x, part.y, part.z)
        roof = part.points.z - liver.diaphragm(part.points, self.patient.shape)
        d = np.maximum(d, roof + 4)
        part.paint(d, self.patient.hu["muscle"] + 20)
        inside = d + np.float32(4) + 1.5 * grain
        part.paint(inside, self.patient.hu["stomach"] + 5 * grain)
        level = centre[1] + (2 * self.gas_level - 0.3) * radii[1]
        part.paint(np.maximum(inside, np.float32(level) - part.points.y), _GAS_HU)

    def _heart(self, slab: Slab) -> None:
        hu = self.patient.hu
        centre = self.heart
        part = slab.within(ellipsoid_box(centre, (62.0, 54.0, 48.0), 8))
        if part is None:
            return
        d = ellipsoid(part.points, centre, (60.0, 50.0, 46.0))
        roof = liver.diaphragm(part.points, self.patient.shape) - part.points.z
        d = np.maximum(d, roof + 3)
        part.paint(d - 5, hu["fat"])
        part.paint(d, hu["muscle"] + 35)
        left = (centre[0] - 22, centre[1] - 2, centre[2])
        right = (centre[0] + 22, centre[1] + 8, centre[2])
        for chamber, radii in ((left, (22.0, 26.0, 32.0)), (right, (24.0, 30.0, 34.0))):
            inside = ellipsoid(part.points, chamber, radii)
            part.paint(np.maximum(inside, d + 5), hu["heart"])

    def _pancreas(self, slab: Slab) -> None:
        for segment in (
            Segment((22.0, 6.0, -52.0), (-20.0, 14.0, -34.0), 13.0, 9.0),
            Segment((-20.0, 14.0, -34.0), (-70.0, -14.0, -8.0), 9.0, 8.0),
        ):
            part = slab.within(segment.box)
            if part is not None:
                grain = self.grain.on(part.x, part.y, part.z)
                part.paint(
                    tube(part.points, segment) + 3 * grain, self.patient.hu["pancreas"]
                )

    def _colon(self, slab: Slab) -> None:
        for segment, filling in self.colon:
            part = slab.within(segment.box)
            if part is None:
                continue
            grain = self.grain.on(part.x, part.y, part.z)
            d = tube(part.points, segment) + 2.5 * grain
            d = np.maximum(d, liver.cavity(part.points) + 4)
            part.paint(d, self.patient.hu["bowel"])
            gas = np.where(grain > filling, np.float32(_GAS_HU), 20 + 60 * grain)
            part.paint(d + 3, gas, 2.0)


def _colon(rng: np.random.Generator) -> list[tuple[Segment, float]]:
    """Returns the colon: right flank, in front, left flank; each with its filling."""
    corners = [
        (88.0, -12.0, -260.0),
        (94.0, -4.0, -150.0),
        (72.0, 44.0, -118.0),
        (0.0, 68.0, -95.0),
        (-70.0, 52.0, -62.0),
        (-100.0, 8.0, -36.0),
        (-104.0, -22.0, -120.0),
        (-96.0, -18.0, -260.0),
    ]
    moved = [tuple((np.array(c) + rng.normal(0, 6, 3)).tolist()) for c in corners]
    radii = rng.uniform(13, 23, len(corners)).tolist()
    return [
        (
            Segment(moved[k], moved[k + 1], radii[k], radii[k + 1]),
            float(rng.uniform(-0.8, 1.5)),
        )
        for k in range(len(corners) - 1)
    ]
