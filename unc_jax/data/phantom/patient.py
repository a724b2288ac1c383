"""Drawn patient: sizes, tissues, lesions and protocol of the scan; no voxels yet."""

from typing import Any, NamedTuple

import numpy as np

from unc_jax.data.phantom import lesion, liver, protocol
from unc_jax.data.phantom.ambiguity import Ambiguity, draw_ambiguity
from unc_jax.data.phantom.field import generator
from unc_jax.data.phantom.lesion import Lesion
from unc_jax.data.phantom.liver import LiverShape, Tree
from unc_jax.data.phantom.mask import Mask
from unc_jax.data.phantom.protocol import Extent, Protocol
from unc_jax.data.phantom.shape import Points

# Mean HU of portal venous, arterial and native scans.
_TISSUES = {
    "liver": (110, 72, 58),
    "spleen": (118, 125, 50),
    "aorta": (155, 290, 42),
    "portal": (165, 95, 42),
    "hepatic": (160, 70, 42),
    "cava": (135, 75, 40),
    "cortex": (185, 190, 33),
    "medulla": (165, 85, 33),
    "heart": (145, 220, 42),
    "muscle": (62, 58, 52),
    "pancreas": (95, 95, 42),
    "bowel": (75, 70, 35),
}
_SPREAD = {"aorta": 18, "heart": 16, "cortex": 14, "spleen": 10, "liver": 10}
_PHASES = ("portal", "arterial", "native")
_COARSE_MM = 5.0


class Patient(NamedTuple):
    scale: tuple[float, ...]  # mm of this patient per mm of the frame
    fat_mm: float  # under the skin, at the flank
    visceral_fat: float  # 0 lean .. 1 much, between the bowel loops
    hu: dict[str, float]
    shape: LiverShape
    vessels: tuple[Tree, ...]
    tumours: tuple[Lesion, ...]
    cysts: tuple[Lesion, ...]
    ambiguity: Ambiguity
    protocol: Protocol
    volume_ml: float  # of the undeformed liver, or of the mask


def draw_patient(seed: int, index: int, mask: Mask | None = None) -> Patient:
    """Draws all of a case but its fields and its noise; about 10 ms.

    With a mask, size, posture and grid are those of the mask, and lesions lie in it.
    """
    rng = generator(seed, "patient", index)
    build = float(np.clip(rng.normal(0.97, 0.065), 0.83, 1.15))
    stretch = np.clip(rng.normal(1, [0.05, 0.06, 0.05]), 0.88, 1.14)
    scale = tuple((build * stretch).tolist())
    fat = float(np.clip(np.exp(rng.normal(np.log(16), 0.5)), 5, 45))
    shape = liver.draw_shape(seed, index)
    inside, depths = _sample(shape)
    extent = Extent(
        float(inside[:, 2].max()) * scale[2],
        float(inside[:, 2].min()) * scale[2],
        (liver.CAVITY[0] + 13 + fat) * scale[0],
    )
    scan = protocol.draw_protocol(seed, index, extent)
    volume = len(inside) * _COARSE_MM**3 * float(np.prod(scale)) / 1000
    if mask is not None:
        scale, corner = _fit(inside, mask)
        inside, depths = mask.lattice()
        inside, depths = (inside + corner) / scale, depths / np.mean(scale)
        scan = protocol.refit(scan, mask.shape, mask.spacing_mm, corner)
        scan = scan._replace(orientation=mask.orientation)
        volume = mask.volume_ml
    tissues = draw_tissues(seed, index, scan)
    return Patient(
        scale=scale,
        fat_mm=fat,
        visceral_fat=float(np.clip(fat / 30 + rng.normal(0, 0.2), 0, 1)),
        hu=tissues,
        shape=shape,
        vessels=liver.draw_vessels(seed, index, shape),
        tumours=lesion.draw_tumours(seed, index, inside, depths, scan.noise_hu),
        cysts=lesion.draw_cysts(seed, index, inside),
        ambiguity=draw_ambiguity(seed, index, scan, tissues, inside),
        protocol=scan,
        volume_ml=volume,
    )


def draw_tissues(seed: int, index: int, scan: Protocol) -> dict[str, float]:
    """Draws the HU of each tissue, by phase; some livers are fatty."""
    rng = generator(seed, "tissues", index)
    at = _PHASES.index(scan.phase)
    hu = {
        name: values[at] + float(rng.normal(0, _SPREAD.get(name, 5)))
        for name, values in _TISSUES.items()
    }
    if rng.random() < 0.15:  # steatosis
        hu["liver"] -= float(rng.uniform(20, 50))
    if rng.random() < 0.15:  # no contrast to the spleen
        hu["spleen"] = hu["liver"] + float(rng.normal(0, 4))
    filling = rng.random()
    if filling < 0.3:  # food as dense as liver
        hu["stomach"] = hu["liver"] + float(rng.normal(0, 6))
    elif filling < 0.75:
        hu["stomach"] = float(rng.uniform(5, 45))
    else:  # oral contrast medium
        hu["stomach"] = float(rng.uniform(130, 320))
    if scan.degradation:
        # What is left of the contrast to the neighbours.
        left = 0.6 * (1 - scan.degradation)
        hu["liver"] = hu["muscle"] + left * (hu["liver"] - hu["muscle"])
        for name in ("spleen", "stomach", "bowel", "heart", "cava", "portal"):
            near = hu["liver"] + float(rng.normal(0, 5))
            hu[name] = near + left * (hu[name] - near)
    hu["lumen"] = float(rng.uniform(160, 350)) if filling > 0.75 else 25.0
    hu["fat"] = float(rng.normal(-103, 5))
    hu["lung"] = float(rng.uniform(-880, -800))
    hu["bile"] = float(rng.uniform(2, 18))
    return hu


def facts(patient: Patient) -> dict[str, Any]:
    """Returns the known facts of a case, as plain numbers for JSON."""
    scan = patient.protocol
    return {
        "phase": scan.phase,
        "degradation": scan.degradation,
        "noise_hu": scan.noise_hu,
        "slice_spacing_mm": scan.spacing_mm,
        "native_slices": scan.slices,
        "fov_mm": scan.fov_mm,
        "orientation": scan.orientation,
        "breaths": [list(breath) for breath in scan.breaths],
        "hu": dict(patient.hu),
        "drawn_liver_ml": patient.volume_ml,
        "tumours": [
            {**tumour._asdict(), "radius_mm": tumour.radius}
            for tumour in patient.tumours
        ],
        "cysts": len(patient.cysts),
        "ambiguity": patient.ambiguity.facts(),
    }


def _sample(shape: LiverShape) -> tuple[np.ndarray, np.ndarray]:
    """Returns points in the undeformed liver (m, 3), coarse, and their depth, mm."""
    low, high = (np.array(corner) for corner in liver.LIVER_BOX)
    axes = [
        np.arange(a, b, _COARSE_MM, dtype=np.float32)
        for a, b in zip(low, high, strict=True)
    ]
    x, y, z = np.meshgrid(*axes, indexing="ij", sparse=True)
    d = liver.distance(Points(x, y, z), shape)
    inside = np.argwhere(d < 0)
    return low + inside * _COARSE_MM, -d[d < 0]


def _fit(inside: np.ndarray, mask: Mask) -> tuple[tuple[float, ...], np.ndarray]:
    """Returns scale and grid corner, mm, that put a drawn liver on a mask.

    Centred in plane, level with the top: the diaphragm is what must fit best.
    """
    points, _ = mask.lattice()
    low, high = points.min(0), points.max(0)
    scale = np.clip((high - low) / (inside.max(0) - inside.min(0)), 0.75, 1.45)
    corner = scale * (inside.max(0) + inside.min(0)) / 2 - (high + low) / 2
    corner[2] = scale[2] * inside[:, 2].max() - high[2]
    return tuple(scale.tolist()), corner
