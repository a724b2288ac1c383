"""Voxels of the test cases: calibration of probabilities, agreement with raters.

RUN/voxels/CASE.json holds the sums of one case, RUN/voxels.json those of all.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from numpy.typing import ArrayLike

from unc_jax.data import files, prepare_case
from unc_jax.data.cohort import Cohort, read_image
from unc_jax.errors import InputError
from unc_jax.study import metrics, statistics
from unc_jax.study.distances import NEAR_VOXELS, near_boundary
from unc_jax.study.run_folder import read_if_there
from unc_jax.study.tables import Table, number
from unc_jax.uncertainty.prediction import Prediction

PLACES = ("everywhere", "near")
# Probabilities that are assessed: their names in voxels.json, and in words.
PROBABILITIES = {"mean": "mean of the samples", "single": "one pass, no dropout"}
_NUMBERS = ("ece", "brier", "nll")
_RATERS = ("cross_correlation", "cross_correlation_near", "energy_distance")


def assess(
    mean: ArrayLike, single: ArrayLike, label: ArrayLike
) -> dict[str, dict[str, Any]]:
    """Returns the sums of both probabilities at both places as plain JSON.

    mean, single, label: (x, y, z).
    """
    # Rounding may move means over windows slightly outside 0 ... 1.
    p = {"mean": np.clip(mean, 0.0, 1.0), "single": np.clip(single, 0.0, 1.0)}
    within = {"everywhere": None, "near": near_boundary(label)}
    return _of_each(
        lambda name, place: metrics.sum_voxels(p[name], label, within=within[place])
    )


def against_raters(
    uncertainty: np.ndarray, samples: np.ndarray, marked: np.ndarray
) -> dict[str, float | None]:
    """Compares the uncertainty map and the samples of a case with several raters.

    uncertainty: (x, y, z); samples: masks, bit-packed along z, uint8 (n, x, y,
    ceil(z / 8)); marked: masks of the raters, bool (r, x, y, z). Returns the
    cross-correlation of the map with the raters' disagreement, everywhere and among the
    voxels near the boundary of their majority mask, where it is not enough to be
    uncertain at every boundary; and the generalised energy distance.
    """
    disagreed = metrics.disagreement(marked)
    near = near_boundary(2 * metrics.votes(marked) >= len(marked))
    return {
        "cross_correlation": metrics.cross_correlation(uncertainty, disagreed),
        "cross_correlation_near": metrics.cross_correlation(
            uncertainty, disagreed, within=near
        ),
        "energy_distance": metrics.generalised_energy_distance(
            samples, np.packbits(marked, axis=-1)
        ),
    }


def build_assessment(
    prepared: Cohort,
    single: Callable[[np.ndarray], np.ndarray],
    *,
    raters_of: Path,
    values: Sequence[int],
    folder: Path,
) -> Callable[[int, Prediction], None]:
    """Builds a function (case index, prediction) that writes folder/CASE.json.

    It does nothing for cases outside the test set. single: function to the
    probabilities of one pass without dropout; raters_of: data set whose raters/ the
    samples are compared with, if it has any; values: labels of the target there. A case
    with a rater's file that is unreadable or on another grid is not compared, which a
    warning says.
    """
    shape = prepared.images.shape[1:]

    def assess_case(index: int, prediction: Prediction) -> None:
        """Writes folder/CASE.json of a test case."""
        case = prepared.ids[index]
        if case not in prepared.split.test:
            return
        with ThreadPoolExecutor(1) as beside:  # runs while `single` uses the device
            compared = beside.submit(compare, index, prediction)
            once = single(read_image(prepared, case))
            found: dict = assess(prediction.mean, once, prepared.labels[index])
            found["raters"] = compared.result()
        files.write_json(folder / f"{case}.json", found)

    def compare(index: int, prediction: Prediction) -> dict[str, float | None] | None:
        """Returns `against_raters` of a case; None without two raters, or a bad one."""
        paths = prepare_case.rater_files(raters_of, prepared.ids[index])
        if len(paths) < 2:
            return None
        record = prepared.records[index]
        try:
            marked = prepare_case.prepare_raters(
                paths, record, shape=shape, values=values
            )
        except InputError as error:
            logging.warning(
                "%s is not compared with its raters: %s", record["id"], error
            )
            return None
        return against_raters(prediction.uncertainty, prediction.masks, marked)

    return assess_case


def collect(folder: Path, cases: Sequence[str]) -> dict[str, Any] | None:
    """Returns the content of voxels.json from folder/CASE.json; None without any.

    "tallies": sums over the cases, by probability and place; "raters": by case, for
    those that have several; "cases": the number of cases summed.
    """
    each = ((case, read_if_there(folder / f"{case}.json")) for case in cases)
    found = {case: one for case, one in each if one}
    if not found:
        return None
    return add(
        [
            {
                "cases": 1,
                "tallies": one,
                "raters": {case: one["raters"]} if one["raters"] else {},
            }
            for case, one in found.items()
        ]
    )


def add(contents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Adds several contents of voxels.json, of different cases; at least one."""
    try:
        return {
            "cases": sum(one["cases"] for one in contents),
            "tallies": _of_each(
                lambda name, place: metrics.add_sums(
                    [one["tallies"][name][place] for one in contents]
                )
            ),
            "raters": {k: v for one in contents for k, v in one["raters"].items()},
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _of_another_form(error) from None


def _of_another_form(error: Exception) -> InputError:
    return InputError(
        f"a voxels.json is not of this form ({error!r}); evaluate the run again"
    )


def describe(contents: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Returns a model's calibration and agreement with raters, for statistics.json.

    contents: voxels.json of each run, None if missing. Returns None if no run has one.
    The reliability diagrams are those of the first run that has one.
    """
    found = [content for content in contents if content is not None]
    if not found:
        return None
    try:
        return {
            "runs": len(found),
            "calibration": _of_each(
                lambda name, place: _calibration(
                    [one["tallies"][name][place] for one in found]
                )
            ),
            "raters": _raters([one["raters"] for one in found]),
        }
    except (KeyError, TypeError, ValueError) as error:
        raise _of_another_form(error) from None


def voxel_tables(content: dict[str, Any]) -> list[Table]:
    """Returns tables of calibration and, with several raters, of agreement with them.

    content: content of statistics.json.
    """
    calibrated, rated = [], []
    for model in content["models"]:
        voxels = model["voxels"] or {"calibration": {}, "raters": None}
        for source, found in voxels["calibration"].items():
            numbers = [
                number(found[place][name]["mean"], ".3g")
                for place in reversed(PLACES)
                for name in _NUMBERS
            ]
            calibrated.append([model["name"], PROBABILITIES[source], *numbers])
        if found := voxels["raters"]:
            numbers = [number(found[one]["mean"], ".3g") for one in _RATERS]
            cases = max(found[name]["n"][0] for name in _RATERS)
            rated.append([model["name"], *numbers, str(cases)])
    tables = [
        Table(
            "Voxels",
            (
                *("model", "source", "ECE near", "Brier near", "NLL near (nats)"),
                *("ECE", "Brier", "NLL (nats)"),
            ),
            calibrated,
            "Calibration of the foreground probability over the voxels of the test "
            f"cases; near: at most {NEAR_VOXELS} voxels from the reference's boundary. "
            "Means over seeds.",
        ),
        Table(
            "Voxels against raters",
            ("model", "correlation", "correlation near", "energy distance", "cases"),
            rated,
            "Against several raters, mean over test cases and seeds: normalised "
            "cross-correlation of the uncertainty map with the raters' disagreement "
            "(1: the map is where they disagree), everywhere and near the boundary, "
            "and generalised energy distance between samples and raters (0: samples "
            "differ as raters do).",
        ),
    ]
    return [one for one in tables if one.rows]


def _of_each(of: Callable[[str, str], Any]) -> dict[str, dict[str, Any]]:
    return {
        source: {place: of(source, place) for place in PLACES}
        for source in PROBABILITIES
    }


def _calibration(sums: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns calibration over the runs of a model from the sums of each."""
    each = [metrics.calibration(one) for one in sums]
    return {
        **{name: statistics.spread(one[name] for one in each) for name in _NUMBERS},
        "n": [one["n"] for one in each],
        "reliability": metrics.reliability(sums[0]),
    }


def _raters(stored: Sequence[dict[str, dict[str, Any]]]) -> dict[str, Any] | None:
    """Returns means over cases and runs; undefined numbers of a case are left out."""
    if not any(stored):
        return None
    result = {}
    for name in _RATERS:
        runs = [
            [one[name] for one in by_case.values() if one[name] is not None]
            for by_case in stored
        ]
        result[name] = statistics.spread(
            map(statistics.mean, runs), n=list(map(len, runs))
        )
    return result
