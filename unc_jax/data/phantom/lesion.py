"""Lesions of the liver: labelled tumours, and cysts without a label."""

from typing import NamedTuple

import numpy as np

from unc_jax.data.phantom.field import generator
from unc_jax.data.phantom.shape import Points, Vector, ellipsoid

TUMOUR_FREE = 0.1


class Lesion(NamedTuple):
    centre: Vector
    radii: Vector
    contrast_hu: float  # to the liver around it
    core_hu: float  # added to the middle (necrosis); 0 for none
    rim_hu: float  # added to the edge; 0 for none
    lobed_mm: float  # how uneven its surface is
    ambiguity_mm: float  # width over which its edge can be drawn
    inclusion: float  # share of raters who call it a tumour

    @property
    def radius(self) -> float:
        return float(np.prod(self.radii) ** (1 / 3))

    def distance(self, points: Points, unevenness: np.ndarray) -> np.ndarray:
        """Returns the signed distance, mm; `unevenness` has unit standard deviation."""
        lobed = np.float32(self.lobed_mm) * unevenness
        return ellipsoid(points, self.centre, self.radii) + lobed


def tumour_count(seed: int, index: int) -> int:
    """Draws a number of tumours: 0 with probability 0.1, else 1..9, median 3."""
    rng = generator(seed, "tumour count", index)
    if rng.random() < TUMOUR_FREE:
        return 0
    return int(np.clip(rng.geometric(0.25), 1, 9))


def draw_tumours(
    seed: int, index: int, inside: np.ndarray, depths: np.ndarray, noise_hu: float
) -> tuple[Lesion, ...]:
    """Draws tumours centred on some of the points `inside` (m, 3), `depths` mm deep.

    Sizes are log-normal about a size of the case (3..55 mm radius); about one case in
    twelve has a giant one that bulges out of the liver.
    """
    rng = generator(seed, "tumours", index)
    count = tumour_count(seed, index)
    typical = float(np.clip(np.exp(rng.normal(np.log(13), 0.55)), 4, 28))
    sign = 1.0 if rng.random() < 0.15 else -1.0
    contrast = float(np.clip(rng.normal(38, 14), 12, 75))
    lesions: list[Lesion] = []
    for number in range(count):
        radius = float(np.clip(typical * np.exp(rng.normal(0, 0.5)), 3, 34))
        if number == 0 and rng.random() < 0.08:
            radius = float(rng.uniform(34, 55))
        centre = _place(rng, inside, depths, radius, lesions)
        radii = tuple((radius * np.exp(rng.normal(0, 0.14, 3))).tolist())
        own = sign * max(10.0, contrast + rng.normal(0, 8))
        visible = abs(own) * np.sqrt(radius) / (noise_hu * 4)
        necrotic = radius > 9 and rng.random() < 0.4
        lesion = Lesion(
            centre=centre,
            radii=radii,  # type: ignore[arg-type]
            contrast_hu=own,
            core_hu=-float(rng.uniform(15, 40)) if necrotic else 0.0,
            rim_hu=float(rng.uniform(12, 30)) if rng.random() < 0.2 else 0.0,
            lobed_mm=float(rng.uniform(0.02, 0.14)) * radius,
            ambiguity_mm=float(
                np.clip(rng.uniform(0.05, 0.12) * radius + 0.6 / visible, 0.5, 6)
            ),
            inclusion=float(np.clip(0.45 + 0.6 * visible, 0.3, 1)),
        )
        lesions.append(lesion)
    if lesions:  # a case with tumours has one that everybody sees
        lesions[0] = lesions[0]._replace(inclusion=1.0)
    return tuple(lesions)


def draw_cysts(seed: int, index: int, inside: np.ndarray) -> tuple[Lesion, ...]:
    """Draws none to three cysts, mostly none, at points `inside` (m, 3), mm."""
    rng = generator(seed, "cysts", index)
    count = int(rng.integers(1, 4)) if rng.random() < 0.22 else 0
    cysts = []
    for _ in range(count):
        centre = tuple(inside[rng.integers(len(inside))].tolist())
        radius = float(np.clip(np.exp(rng.normal(1.7, 0.5)), 2.5, 18))
        radii = (radius, radius, radius)
        cysts.append(Lesion(centre, radii, 0.0, 0.0, 0.0, 0.0, 0.5, 0.0))
    return tuple(cysts)


def _place(
    rng: np.random.Generator,
    inside: np.ndarray,
    depths: np.ndarray,
    radius: float,
    others: list[Lesion],
) -> Vector:
    """Returns a point deep enough for most of the tumour, apart from the others."""
    best, best_score = 0, -np.inf
    for candidate in rng.integers(0, len(inside), 40):
        gaps = [
            float(np.linalg.norm(inside[candidate] - np.array(other.centre)))
            - radius
            - other.radius
            for other in others
        ]
        score = min(0.0, float(depths[candidate]) - 0.55 * radius)
        score += min(0.0, min(gaps, default=0.0))
        if score > best_score:
            best, best_score = int(candidate), score
        if score == 0:
            break
    return tuple(inside[best].tolist())
