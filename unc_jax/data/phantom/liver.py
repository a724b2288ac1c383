"""Liver: its shape under the diaphragm, its vessel trees, its lesions."""

from typing import NamedTuple

import numpy as np

from unc_jax.data.phantom.field import generator
from unc_jax.data.phantom.shape import (
    Box,
    Points,
    Segment,
    Vector,
    column,
    ellipsoid,
    smooth_intersection,
    smooth_union,
)

CAVITY = (132.0, 94.0)
CAVITY_POWER = 2.4
LIVER_BOX = Box((-115.0, -100.0, -130.0), (140.0, 105.0, 100.0))


class LiverShape(NamedTuple):
    right_top: float  # of the diaphragm's right dome, mm
    left_top: float
    right: tuple[Vector, Vector]  # centre and radii of the right lobe
    left: tuple[Vector, Vector]
    visceral: Vector  # height and slopes of the lower face along x and y
    kidney: tuple[Vector, Vector]  # the right kidney presses into it
    stomach: tuple[Vector, Vector]
    fissure: tuple[Vector, Vector]  # between the lobes, from below


def draw_shape(seed: int, index: int) -> LiverShape:
    """Draws size and form of a liver in the patient frame, mm."""
    rng = generator(seed, "liver", index)
    u = rng.uniform
    top = float(u(70, 88))
    long = float(rng.normal(0, 12))  # how far the tip hangs down
    left = float(np.clip(rng.normal(86, 20), 45, 130))  # small or wrapping left lobe
    return LiverShape(
        right_top=top,
        left_top=top - float(u(2, 22)),
        right=(
            (float(u(54, 66)), float(u(-12, 0)), -6.0 - long / 2),
            (float(u(70, 85)), float(u(84, 99)), 96.0 + long / 2),
        ),
        left=(
            (float(u(-22, 2)), float(u(40, 54)), float(u(10, 28))),
            (left, float(u(32, 46)), float(u(36, 52))),
        ),
        visceral=(float(u(-22, 0)), float(u(-1.0, -0.65)), float(u(-0.35, 0.1))),
        kidney=(
            (float(u(52, 62)), float(u(-56, -46)), float(u(-85, -55)) - long / 3),
            (float(u(24, 29)), float(u(22, 27)), float(u(46, 58))),
        ),
        stomach=(
            (float(u(-70, -52)), float(u(-24, -2)), float(u(18, 40))),
            (float(u(32, 46)), float(u(34, 52)), float(u(32, 46))),
        ),
        fissure=(
            (float(u(-6, 10)), float(u(38, 56)), float(u(-24, -4))),
            (float(u(1.5, 5)), float(u(24, 38)), float(u(20, 34))),
        ),
    )


def diaphragm(points: Points, shape: LiverShape) -> np.ndarray:
    """Returns the height of the diaphragm's two domes over (x, y), mm."""
    x, y = points.x, points.y
    q = np.square((x - 66) / 84) + np.square((y + 4) / 88)
    right = np.float32(shape.right_top) - 34 * q - 30 * q * q
    q = np.square((x + 74) / 80) + np.square((y - 2) / 88)
    left = np.float32(shape.left_top) - 34 * q - 30 * q * q
    return -smooth_union(-right, -left, 24.0)


def cavity(points: Points) -> np.ndarray:
    """Returns the distance to the inner face of the body wall, upright."""
    return column(points.x, points.y - np.float32(4), CAVITY, CAVITY_POWER)


def distance(points: Points, shape: LiverShape) -> np.ndarray:
    """Returns the liver's distance, mm: lobes, cut by wall, diaphragm and organs."""
    x, y, z = points
    lobes = smooth_union(
        ellipsoid(points, *shape.right), ellipsoid(points, *shape.left), 22.0
    )
    height, slope_x, slope_y = (np.float32(v) for v in shape.visceral)
    steep = np.sqrt(1 + slope_x**2 + slope_y**2)
    lower = (height + slope_x * x + slope_y * y - z) / steep
    roof = (z - diaphragm(points, shape) + 4) * np.float32(0.85)
    d = smooth_intersection(lobes, lower, 10.0)
    d = smooth_intersection(d, roof, 8.0)
    d = smooth_intersection(d, cavity(points) + 4, 6.0)
    spine = np.hypot((x + 8) / 44, (y + 58) / 44)
    d = smooth_intersection(d, (1 - spine) * 44, 10.0)
    d = smooth_intersection(d, 5 - ellipsoid(points, *shape.kidney), 10.0)
    d = smooth_intersection(d, 5 - ellipsoid(points, *shape.stomach), 12.0)
    return smooth_intersection(d, 1 - ellipsoid(points, *shape.fissure), 5.0)


class Tree(NamedTuple):
    kind: str  # "portal" or "hepatic"
    segments: tuple[Segment, ...]


def draw_vessels(seed: int, index: int, shape: LiverShape) -> tuple[Tree, ...]:
    """Draws three hepatic veins from the vena cava and a portal tree from the hilum."""
    rng = generator(seed, "vessels", index)
    top = shape.right_top
    cava, hilum = (24.0, -30.0, top - 26.0), (20.0, 0.0, -14.0)
    hepatic = []
    for aim in ((95.0, 5.0, 15.0), (60.0, 50.0, 15.0), (-15.0, 45.0, 25.0)):
        hepatic += _branches(rng, cava, aim, 6.0, 4)
    portal = [Segment((0.0, -8.0, -42.0), hilum, 7.5, 7.0)]
    for aim in ((75.0, -5.0, 2.0), (10.0, 40.0, 12.0)):
        portal += _branches(rng, hilum, aim, 6.0, 4)
    return Tree("hepatic", tuple(hepatic)), Tree("portal", tuple(portal))


def _branches(
    rng: np.random.Generator, start: Vector, aim: Vector, radius: float, depth: int
) -> list[Segment]:
    if depth == 0 or radius < 0.9:
        return []
    begin, step = np.array(start), np.array(aim) - np.array(start)
    share = rng.uniform(0.55, 0.75)
    end = tuple((begin + share * step + rng.normal(0, 3, 3)).tolist())
    thinner = radius * rng.uniform(0.7, 0.84)
    segments = [Segment(start, end, radius, thinner)]
    for _ in range(2):
        turn = rng.normal(0, 0.65, 3) * np.linalg.norm(step)
        onward = tuple((np.array(end) + 0.75 * step + 0.75 * turn).tolist())
        segments += _branches(rng, end, onward, thinner, depth - 1)
    return segments
