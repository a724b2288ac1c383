"""What the voxels of a case say beside its row: calibration, and likeness to raters.

RUN/voxels/CASE.json holds the sums of one test case, RUN/voxels.json those of all.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.study import calibration, raters
from unc_jax.study.calibration import Tally

# "near" the target: at most this many voxels (faces, edges, corners) from its boundary.
NEAR_VOXELS = 4
PLACES = ("everywhere", "near")
# The mean of N stochastic passes; one pass without dropout.
SOURCES = ("mean", "single")


def near_boundary(label: ArrayLike) -> np.ndarray:
    """Voxels within NEAR_VOXELS of the boundary of a mask, bool (x, y, z).

    None of an empty mask. The border of the volume is no boundary.
    """
    mask = np.asarray(label) != 0
    cube = np.ones((3, 3, 3), bool)
    grown = ndimage.binary_dilation(mask, cube, NEAR_VOXELS)
    core = ndimage.binary_erosion(mask, cube, NEAR_VOXELS, border_value=1)
    return np.logical_and(grown, np.logical_not(core))


def assess(
    mean: ArrayLike, single: ArrayLike, label: ArrayLike
) -> dict[str, dict[str, Any]]:
    """Tallies of both sources at both places; arrays (x, y, z), plain JSON out."""
    near = near_boundary(label)
    result: dict[str, dict[str, Any]] = {}
    for source, p in zip(SOURCES, (mean, single), strict=True):
        # Means over windows of values in 0 ... 1 may leave it by a rounding.
        p = np.clip(np.asarray(p), 0.0, 1.0)
        result[source] = {
            "everywhere": _plain(calibration.tally(p, label)),
            "near": _plain(calibration.tally(p, label, within=near)),
        }
    return result


def against_raters(
    uncertainty: np.ndarray, samples: np.ndarray, marked: np.ndarray
) -> dict[str, float | None]:
    """Is the map where raters disagree, do samples differ as raters do?

    uncertainty: (x, y, z); samples: masks (n, x, y, z); marked: masks of the raters
    (r, x, y, z). Cross-correlation with their disagreement everywhere, and among the
    voxels near the boundary of what most of them marked (there alone "the boundary is
    uncertain" earns nothing); generalised energy distance. See `raters`.
    """
    disagreed = raters.disagreement(marked)
    near = near_boundary(np.mean(marked, axis=0) >= 0.5)
    return {
        "cross_correlation": raters.cross_correlation(uncertainty, disagreed),
        "cross_correlation_near": raters.cross_correlation(
            uncertainty, disagreed, within=near
        ),
        "energy_distance": raters.generalised_energy_distance(samples, marked),
    }


def write_case(path: Path, found: dict[str, Any]) -> None:
    files.write_json(path, found)


def collect(folder: Path, cases: Sequence[str]) -> dict[str, Any] | None:
    """The content of voxels.json from folder/CASE.json; None when no case has one.

    "tallies": sums over the cases, by source and place; "raters": by case, for those
    that have several; "cases": how many were summed.
    """
    paths = {case: folder / f"{case}.json" for case in cases}
    found = {case: _read(path) for case, path in paths.items() if path.exists()}
    if not found:
        return None
    tallies = {
        source: {
            place: _plain(
                calibration.total(_tally(one[source][place]) for one in found.values())
            )
            for place in PLACES
        }
        for source in SOURCES
    }
    rated = {case: one["raters"] for case, one in found.items() if one["raters"]}
    return {"cases": len(found), "tallies": tallies, "raters": rated}


def read_tallies(content: dict[str, Any]) -> dict[str, dict[str, Tally]]:
    """The tallies of a voxels.json, by source and place."""
    stored = content["tallies"]
    return {s: {p: _tally(stored[s][p]) for p in PLACES} for s in SOURCES}


def _plain(sums: Tally) -> dict[str, Any]:
    return {name: np.asarray(value).tolist() for name, value in sums._asdict().items()}


def _tally(stored: dict[str, Any]) -> Tally:
    return Tally(
        np.array(stored["count"], float),
        np.array(stored["probability"], float),
        np.array(stored["foreground"], float),
        float(stored["squared_error"]),
        float(stored["log_loss"]),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        cause = " ".join(str(error).split())
        raise InputError(
            f"{path} cannot be read ({cause}); delete it and evaluate again"
        ) from None
