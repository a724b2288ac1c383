"""Protocol of a scan: contrast phase, dose, slices, field of view, posture."""

from typing import NamedTuple

import numpy as np

from unc_jax.data.phantom.field import generator

SLICES = (75, 400)
DEGRADED = 0.3  # share of cases
_SPACINGS_MM = (0.7, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 5.0)
_SPACING_ODDS = (0.1, 0.14, 0.22, 0.1, 0.12, 0.1, 0.08, 0.06, 0.08)
_ORIENTATIONS = ("LAS", "LPS", "RAS")


class Protocol(NamedTuple):
    phase: str  # portal, arterial, native
    noise_hu: float  # standard deviation in the liver
    blur_mm: float  # of the reconstruction kernel
    fov_mm: float  # the grid's edge in plane
    centre_mm: tuple[float, float]  # of the field of view, patient frame
    top_mm: float  # upper edge of the scan, patient frame
    slices: int
    spacing_mm: float  # between slices, at full resolution
    slices_share: float  # of the upper bound on slices, where one is set
    round_view: bool  # outside the circle nothing was measured
    padding_hu: int  # value there
    breaths: tuple[tuple[float, float], ...]  # (below this z, shifted by), mm
    orientation: str
    # 0 a sound scan; up to 1: low dose, hardly any contrast between soft tissues
    degradation: float


class Extent(NamedTuple):
    """Extent of the patient, mm in the patient frame."""

    liver_top: float
    liver_bottom: float
    half_width: float  # of the body


def draw_protocol(seed: int, index: int, extent: Extent) -> Protocol:
    """Draws the protocol for a patient of `extent`; a function of its arguments."""
    rng = generator(seed, "protocol", index)
    phase = str(rng.choice(["portal", "arterial", "native"], p=[0.72, 0.14, 0.14]))
    noise = float(np.clip(14 * np.exp(0.5 * rng.standard_normal()), 8, 35))
    above, below = rng.uniform(12, 70), rng.uniform(5, 60) + rng.exponential(45)
    liver = extent.liver_top - extent.liver_bottom
    if rng.random() < 0.06:  # the scan begins below the dome
        above = -rng.uniform(0.1, 0.45) * liver
    elif rng.random() < 0.05:  # or ends above the tip
        below = -rng.uniform(0.1, 0.4) * liver
    length = float(np.clip(above + liver + below, 120, 480))
    spacing = float(rng.choice(_SPACINGS_MM, p=np.array(_SPACING_ODDS)))
    slices = int(np.clip(round(length / spacing), *SLICES))
    tight = rng.random() < 0.1  # the flanks lie outside the field of view
    margin = rng.uniform(0.78, 0.92) if tight else rng.uniform(1.03, 1.3)
    orientation = str(rng.choice(_ORIENTATIONS, p=[0.35, 0.45, 0.2]))
    breaths = _breaths(rng, extent)
    degradation = float(rng.uniform(0.2, 1)) if rng.random() < DEGRADED else 0.0
    if degradation:
        noise = float(np.clip((1.2 + 2.5 * degradation) * noise, 25, 90))
    return Protocol(
        phase=phase,
        noise_hu=noise,
        blur_mm=float(rng.uniform(0.8, 1.8)),
        fov_mm=float(np.clip(2 * extent.half_width * margin, 287, 512)),
        centre_mm=(float(rng.normal(0, 6)), float(rng.normal(-4, 8))),
        top_mm=extent.liver_top + above,
        slices=slices,
        spacing_mm=length / slices,
        slices_share=float(rng.uniform(0.7, 1.0)),
        round_view=bool(rng.random() < 0.8),
        padding_hu=int(rng.choice([-1024, -1024, -1000, -2000])),
        breaths=breaths,
        orientation=orientation,
        degradation=degradation,
    )


def grid_shape(
    protocol: Protocol, size: tuple[int, int, int] | None
) -> tuple[int, int, int]:
    """Returns voxels (x, y, z): in plane as asked for, at most as many slices."""
    if size is None:
        return 512, 512, protocol.slices
    most = max(1, round(size[2] * protocol.slices_share))
    return size[0], size[1], min(most, protocol.slices)


def refit(
    protocol: Protocol,
    shape: tuple[int, int, int],
    spacing_mm: np.ndarray,
    corner_mm: np.ndarray,
) -> Protocol:
    """Returns the same scan on a grid whose low corner is at `corner_mm`; no steps."""
    length = np.array(shape) * spacing_mm
    centre = corner_mm + length / 2
    return protocol._replace(
        fov_mm=float(length[:2].min()),
        centre_mm=(float(centre[0]), float(centre[1])),
        top_mm=float(corner_mm[2] + length[2]),
        slices=shape[2],
        spacing_mm=float(spacing_mm[2]),
        breaths=(),
    )


def shifted(protocol: Protocol, z: np.ndarray) -> np.ndarray:
    """Returns the anatomical height at table height `z`; breath-holds differ."""
    moved = z.copy()
    for below, step in protocol.breaths:
        moved += np.where(z < below, step, 0)
    return moved


def _breaths(
    rng: np.random.Generator, extent: Extent
) -> tuple[tuple[float, float], ...]:
    if rng.random() > 0.15:
        return ()
    heights = rng.uniform(extent.liver_bottom, extent.liver_top, rng.integers(1, 3))
    steps = rng.uniform(6, 14, len(heights)) * rng.choice([-1, 1], len(heights))
    return tuple(zip(heights.tolist(), steps.tolist(), strict=True))
