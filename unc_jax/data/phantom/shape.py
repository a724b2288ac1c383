"""Implicit shapes: signed distances in mm, negative inside, on any point arrays."""

from typing import NamedTuple

import numpy as np

Vector = tuple[float, float, float]


class Points(NamedTuple):
    """Points in the anatomical frame, mm: coordinates that broadcast together."""

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray


class Box(NamedTuple):
    low: Vector
    high: Vector


def ellipsoid(points: Points, centre: Vector, radii: Vector) -> np.ndarray:
    """Returns the distance to an ellipsoid to first order, exact on its surface.

    d = k (k - 1) / |grad|, with k the scaled radius (Quilez, 2008).
    """
    x, y, z = (
        (p - np.float32(c)) / np.float32(r)
        for p, c, r in zip(points, centre, radii, strict=True)
    )
    a, b, c = x * x, y * y, z * z
    scaled = np.sqrt(a + b + c)
    a /= np.float32(radii[0] ** 2)
    b /= np.float32(radii[1] ** 2)
    c /= np.float32(radii[2] ** 2)
    a = a + b + c
    np.sqrt(a, out=a)
    a += np.float32(1e-6)
    return scaled * (scaled - 1) / a


def ellipsoid_box(centre: Vector, radii: Vector, margin: float = 0.0) -> Box:
    low = tuple(c - r - margin for c, r in zip(centre, radii, strict=True))
    high = tuple(c + r + margin for c, r in zip(centre, radii, strict=True))
    return Box(low, high)  # type: ignore[arg-type]


class Segment(NamedTuple):
    """A piece of a tube whose radius goes linearly from one end to the other."""

    start: Vector
    end: Vector
    start_radius: float
    end_radius: float

    @property
    def box(self) -> Box:
        reach = max(self.start_radius, self.end_radius) + 3
        low = np.minimum(self.start, self.end) - reach
        high = np.maximum(self.start, self.end) + reach
        return Box(tuple(low.tolist()), tuple(high.tolist()))


def tube(points: Points, segment: Segment) -> np.ndarray:
    """Returns the distance to a round tube with round ends."""
    start = np.asarray(segment.start, np.float32)
    along = np.asarray(segment.end, np.float32) - start
    x, y, z = points.x - start[0], points.y - start[1], points.z - start[2]
    t = (x * along[0] + y * along[1] + z * along[2]) / max(float(along @ along), 1e-6)
    t = np.clip(t, 0, 1)
    x, y, z = x - t * along[0], y - t * along[1], z - t * along[2]
    growth = np.float32(segment.end_radius - segment.start_radius)
    distance = np.sqrt(x * x + y * y + z * z)
    return distance - (np.float32(segment.start_radius) + growth * t)


def column(x: np.ndarray, y: np.ndarray, radii: tuple[float, float], power: float):
    """Returns the radial distance to an upright superellipse about the z axis."""
    scaled = np.abs(x / np.float32(radii[0])) ** np.float32(power)
    scaled = scaled + np.abs(y / np.float32(radii[1])) ** np.float32(power)
    scaled = np.maximum(scaled, np.float32(1e-4)) ** np.float32(1 / power)
    return np.hypot(x, y) * (1 - 1 / scaled)


def smooth_union(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Returns the minimum with a fillet about k mm wide (polynomial, Quilez, 2013)."""
    h = np.maximum(np.float32(k) - np.abs(a - b), 0)
    return np.minimum(a, b) - h * h * np.float32(0.25 / k)


def smooth_intersection(a: np.ndarray, b: np.ndarray, k: float) -> np.ndarray:
    """Returns the maximum with a fillet about k mm wide."""
    return -smooth_union(-a, -b, k)
