"""Voxel calibration and likeness to raters of several models: table and figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unc_jax.errors import InputError
from unc_jax.study import calibration, figures, voxel_agreement
from unc_jax.study.appraisal import spread
from unc_jax.study.tables import UNDEFINED
from unc_jax.study.voxel_agreement import NEAR_VOXELS, PLACES, SOURCES

_RATERS = ("cross_correlation", "cross_correlation_near", "energy_distance")
_NAMES = {"mean": "mean of the samples", "single": "one pass, no dropout"}
# Colour and marker both tell the sources apart.
_STYLES = {"mean": ("#1f4e9c", "o"), "single": ("#e08214", "s")}
_COLUMNS = (
    *("model", "source", "ECE near", "Brier near", "NLL near (nats)"),
    *("ECE", "Brier", "NLL (nats)"),
)
_CAPTION = (
    "Calibration of the foreground probability over the voxels of the test cases; "
    f"near: at most {NEAR_VOXELS} voxels from the reference's boundary. Means over "
    "seeds."
)
_RATERS_CAPTION = (
    "Against several raters, mean over test cases and seeds: normalised "
    "cross-correlation of the uncertainty map with the raters' disagreement (1: the "
    "map is where they disagree), everywhere and near the boundary, and generalised "
    "energy distance between samples and raters (0: samples differ as raters do)."
)


def describe(contents: Sequence[dict[str, Any] | None]) -> dict[str, Any] | None:
    """Of the runs (seeds) of one model: calibration by source and place, and raters.

    contents: of each run's voxels.json, None where there is none; None when no run has
    one. The reliability diagrams are of the first run that has one.
    """
    found = [content for content in contents if content is not None]
    if not found:
        return None
    try:
        tallies = [voxel_agreement.read_tallies(content) for content in found]
        rated = [_mean_over_cases(content["raters"]) for content in found]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"a voxels.json is not of this form ({error!r}); evaluate the run again"
        ) from None
    return {
        "runs": len(found),
        "calibration": {
            source: {
                place: _calibration([one[source][place] for one in tallies])
                for place in PLACES
            }
            for source in SOURCES
        },
        "raters": _raters(rated),
    }


def _calibration(tallies: Sequence[calibration.Tally]) -> dict[str, Any]:
    each = [calibration.calibration(sums) for sums in tallies]
    diagram = calibration.reliability(tallies[0])
    return {
        "ece": spread([one.ece for one in each]),
        "brier": spread([one.brier for one in each]),
        "nll": spread([one.nll for one in each]),
        "n": [one.n for one in each],
        "reliability": {
            name: [None if np.isnan(value) else float(value) for value in values]
            for name, values in diagram._asdict().items()
        },
    }


def _mean_over_cases(rated: dict[str, dict[str, Any]]) -> dict[str, tuple[float, int]]:
    """Mean and number of cases of each quantity; one that is undefined is left out."""
    result = {}
    for name in _RATERS:
        values = [one[name] for one in rated.values() if one[name] is not None]
        if values:
            result[name] = (float(np.mean(values)), len(values))
    return result


def _raters(rated: Sequence[dict[str, tuple[float, int]]]) -> dict[str, Any] | None:
    if not any(rated):
        return None
    return {
        name: {
            **spread([one[name][0] if name in one else None for one in rated]),
            "n": [one[name][1] if name in one else 0 for one in rated],
        }
        for name in _RATERS
    }


def markdown(statistics: dict[str, Any]) -> str:
    """Tables of all models that have voxels.json; raters where there are some."""
    models = [model for model in statistics["models"] if model["voxels"]]
    lines = [_CAPTION, "", _line(_COLUMNS), _line(["---"] * len(_COLUMNS))]
    for model in models:
        for source in SOURCES:
            found = model["voxels"]["calibration"][source]
            numbers = [
                _number(found[place][name]["mean"])
                for place in reversed(PLACES)
                for name in ("ece", "brier", "nll")
            ]
            lines.append(_line([model["name"], _NAMES[source], *numbers]))
    rated = [model for model in models if model["voxels"]["raters"]]
    if rated:
        head = ("model", "correlation", "correlation near", "energy distance", "cases")
        lines += ["", _RATERS_CAPTION, "", _line(head), _line(["---"] * len(head))]
    for model in rated:
        found = model["voxels"]["raters"]
        numbers = [_number(found[name]["mean"]) for name in _RATERS]
        cases = str(max(found[name]["n"][0] for name in _RATERS))
        lines.append(_line([model["name"], *numbers, cases]))
    return "\n".join(lines) + "\n"


def reliability_figure(statistics: dict[str, Any], path: Path) -> Path:
    """Frequency of foreground against probability, near the boundary; a panel a model.

    A mark per bin of probability; of several seeds the first is drawn.
    """
    models = [model for model in statistics["models"] if model["voxels"]]
    columns = min(len(models), 3)
    lines = -(-len(models) // columns)
    size = (3.6 * columns + 0.4, 3.5 * lines + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(models) :]:
        ax.set_visible(False)
    for ax, model in zip(axes, models, strict=False):
        _draw_reliability(ax, model)
    handles = [
        *(
            Line2D([], [], color=color, marker=marker, label=_NAMES[source])
            for source, (color, marker) in _STYLES.items()
        ),
        Line2D([], [], color="0.55", linestyle=":", label="calibrated"),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=3, fontsize=9, frameon=False
    )
    return figures.save(figure, path)


def _draw_reliability(ax: Axes, model: dict[str, Any]) -> None:
    ax.plot([0, 1], [0, 1], color="0.55", linestyle=":")
    for source, (color, marker) in _STYLES.items():
        diagram = model["voxels"]["calibration"][source]["near"]["reliability"]
        x, y = (
            np.array([np.nan if v is None else v for v in diagram[name]], float)
            for name in ("probability", "frequency")
        )
        ax.plot(x, y, color=color, marker=marker, markersize=4, linewidth=1)
    n = model["voxels"]["calibration"]["mean"]["near"]["n"][0]
    ax.set_title(f"{model['name']}\n{n:,} voxels near the boundary", fontsize=9)
    ax.set_xlabel("probability of foreground", fontsize=9)
    ax.set_ylabel("frequency of foreground", fontsize=9)
    ax.set_aspect("equal")
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.5)


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
