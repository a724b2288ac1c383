"""Ambiguity of a liver's edge: spread of careful raters at each place."""

from typing import Any, NamedTuple

import numpy as np

from unc_jax.data.phantom.field import generator
from unc_jax.data.phantom.protocol import Protocol
from unc_jax.data.phantom.shape import Points, Vector


class DisputedPart(NamedTuple):
    """An end of the liver beyond a plane, which some include and others do not."""

    name: str
    normal: Vector  # unit, pointing away from the liver's middle
    offset: float  # the plane is normal . p = offset
    inclusion: float  # share of raters who include it


class Zone(NamedTuple):
    """Surroundings of a point where the edge is less clear than elsewhere."""

    name: str
    centre: Vector
    radius: float
    width_mm: float  # added at the centre


class Ambiguity(NamedTuple):
    base_mm: float
    zones: tuple[Zone, ...]
    parts: tuple[DisputedPart, ...]

    def width(self, points: Points) -> np.ndarray:
        """Returns the spread (sd, mm) of the liver's edge between raters at points."""
        width = np.full(points.x.shape, np.float32(self.base_mm))
        for zone in self.zones:
            square = sum(
                np.square((p - np.float32(c)) / np.float32(zone.radius))
                for p, c in zip(points, zone.centre, strict=True)
            )
            width += np.float32(zone.width_mm) * np.exp(-square)
        return width

    def facts(self) -> dict[str, Any]:
        return {
            "base_mm": self.base_mm,
            "zones": [zone._asdict() for zone in self.zones],
            "parts": [part._asdict() for part in self.parts],
        }


def draw_ambiguity(
    seed: int,
    index: int,
    scan: Protocol,
    hu: dict[str, float],
    inside: np.ndarray,
) -> Ambiguity:
    """Draws widths that grow with noise, thick slices and lost contrast.

    `inside`: points of the liver (m, 3), which say where its ends are.
    """
    rng = generator(seed, "ambiguity", index)
    blur = 0.4 + 0.35 * scan.noise_hu / 15 + 0.12 * scan.spacing_mm
    base = float(blur * np.exp(rng.normal(0, 0.25)))
    base *= 1 + scan.degradation * float(rng.uniform(2, 4))
    hilum = Zone("hilum", (18.0, -4.0, -10.0), 32.0, float(rng.uniform(1, 4)))
    zones = [hilum, Zone("cava", (24.0, -34.0, 40.0), 28.0, float(rng.uniform(0.5, 3)))]
    left = inside[inside[:, 0] <= np.quantile(inside[:, 0], 0.02)].mean(0)
    tip = inside[inside[:, 2] <= np.quantile(inside[:, 2], 0.01)].mean(0)
    contrast = min(
        abs(hu["liver"] - hu["stomach"]), abs(hu["liver"] - hu["spleen"]) + 10
    )
    lost = float(np.exp(-contrast / 15))
    zones += [
        Zone("left lobe", _vector(left), 40.0, 1.0 + 5.0 * lost),
        Zone("lower tip", _vector(tip), 35.0, float(rng.uniform(0.5, 4))),
        Zone("heart", (-5.0, 30.0, 62.0), 35.0, float(rng.uniform(0.5, 3))),
    ]
    parts = []
    if rng.random() < 0.1 + 0.5 * lost or scan.degradation:
        most = 0.06 + 0.36 * scan.degradation
        cut = float(np.quantile(inside[:, 0], rng.uniform(0.3 * most, most)))
        parts.append(DisputedPart("left lobe", (-1.0, 0.0, 0.0), -cut, _share(rng)))
    if scan.breaths or rng.random() < 0.1 + 0.6 * scan.degradation:
        most = 0.05 + 0.2 * scan.degradation
        cut = float(np.quantile(inside[:, 2], rng.uniform(0.2 * most, most)))
        parts.append(DisputedPart("lower tip", (0.0, 0.0, -1.0), -cut, _share(rng)))
    return Ambiguity(base, tuple(zones), tuple(parts))


def _share(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.35, 0.85))


def _vector(point: np.ndarray) -> Vector:
    x, y, z = point.tolist()
    return x, y, z
