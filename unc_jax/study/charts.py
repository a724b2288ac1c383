"""Charts of rows and of a comparison: Figure 2, referral curves and reliability."""

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unc_jax.study import cases_table, statistics
from unc_jax.study.cases_table import Row
from unc_jax.study.figures import add_legend
from unc_jax.study.tables import format_p
from unc_jax.study.voxel_agreement import SOURCES
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

# Colour and shape both tell the splits apart; test is drawn last, on top.
_SPLIT_STYLES = {
    "train": ("#8da0b3", "s", 14),
    "validation": ("#e08214", "^", 22),
    "test": ("#1f4e9c", "o", 22),
}
# Colour and marker both tell the sources of probabilities apart.
_SOURCE_STYLES = {"mean": ("#1f4e9c", "o"), "single": ("#e08214", "s")}
_FEWEST_KEPT = 5  # a mean over fewer cases is noise
_TITLE_LENGTH = 44  # characters beside or above one panel


def in_mathematics(text: str) -> str:
    """Returns a label with its symbols as Matplotlib sets mathematics: D_pw."""
    return re.sub(r"\b([A-Z])_(\w+)", r"$\1_\\mathrm{\2}$", text)


_MEASURE_STYLES = (("#e08214", (4, 2)), ("#1f4e9c", (1, 0)), ("#5aae61", (6, 2, 1, 2)))
# Label, colour and dashes; colour and dashes both tell the measures apart.
MEASURE_STYLES = {
    name: (in_mathematics(MEASURES[name].label), color, dashes)
    for name, (color, dashes) in zip(
        PAPER_MEASURES, cycle(_MEASURE_STYLES), strict=False
    )
}


def style_axes(ax: Axes) -> None:
    """Sets small ticks, two spines and a faint grid."""
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.5)


def figure2(rows_of: Mapping[str, Sequence[Row]]) -> Figure:
    """Draws Dice against each of the paper's measures, a line per model.

    rows_of: rows of cases.csv by the model's name; one run may go without a name.
    Splits differ in colour; titles give Spearman's rho, p and n of the test cases. CV
    is on a logarithmic axis when it spans orders of magnitude. Cases without one of the
    two values are left out.
    """
    figure = Figure(figsize=(11.0, 3.2 * len(rows_of) + 0.6), layout="constrained")
    axes = figure.subplots(len(rows_of), len(PAPER_MEASURES), squeeze=False)
    for (name, rows), line in zip(rows_of.items(), axes, strict=True):
        for ax, measure in zip(line, PAPER_MEASURES, strict=True):
            draw_scatter(ax, rows, measure)
            ax.sharey(line[0])
        words = filter(None, [name, "segmentation quality (Dice)"])
        line[0].set_ylabel("\n".join(words), fontsize=9)
    alone = next(iter(rows_of.values())) if len(rows_of) == 1 else None
    add_legend(figure, _split_handles(alone), columns=len(_SPLIT_STYLES))
    return figure


def draw_scatter(ax: Axes, rows: Sequence[Row], measure: str) -> None:
    """Draws Dice against one measure, a mark per case, the test correlation above."""
    for split, (color, marker, size) in _SPLIT_STYLES.items():
        values = cases_table.column(rows, measure, split)
        dice = cases_table.column(rows, "dice", split)
        ax.scatter(
            values, dice, s=size, c=color, marker=marker, alpha=0.85, linewidths=0
        )
    rho, p, n = statistics.spearman(
        cases_table.column(rows, measure, "test"),
        cases_table.column(rows, "dice", "test"),
    )
    found = "undefined" if rho is None else f"{rho:.2f} (p = {format_p(p)})"
    found = found.replace("-", "\N{MINUS SIGN}")
    ax.set_title(rf"test: $\rho$ = {found}, n = {n}", fontsize=9)
    ax.locator_params(axis="x", nbins=6)
    if measure == "cv":
        _spread_axis(ax, cases_table.column(rows, measure))
    one = MEASURES[measure]
    unit = f" ({one.unit})" if one.unit else ""
    ax.set_xlabel(in_mathematics(one.title) + unit, fontsize=9)
    style_axes(ax)
    ax.set_axisbelow(True)


def referral_figure(statistics: dict[str, Any]) -> Figure:
    """Draws mean Dice of the kept cases against the share referred to a human.

    A panel per model. A measure that is undefined in some cases has its curve over the
    others. statistics: what `comparison.compare` returns.
    """
    handles = [
        Line2D([], [], color="black", linewidth=1, label="oracle (worst first)"),
        *(
            Line2D([], [], color=color, dashes=dashes, label=label)
            for label, color, dashes in MEASURE_STYLES.values()
        ),
        Line2D([], [], color="0.55", linestyle=":", label="random"),
    ]
    figure = _panel_each(statistics["models"], 3.0, _draw_referral)
    add_legend(figure, handles, columns=5)
    return figure


def reliability_figure(statistics: dict[str, Any]) -> Figure | None:
    """Draws frequency of foreground against probability, near the boundary.

    A panel per model that has voxels.json, a mark per bin of probability; None without
    such a model.
    """
    models = [model for model in statistics["models"] if model["voxels"]]
    if not models:
        return None
    handles = [
        *(
            Line2D([], [], color=color, marker=marker, label=SOURCES[source])
            for source, (color, marker) in _SOURCE_STYLES.items()
        ),
        Line2D([], [], color="0.55", linestyle=":", label="calibrated"),
    ]
    figure = _panel_each(models, 3.5, _draw_reliability)
    add_legend(figure, handles, columns=3)
    return figure


def title_of(name: str, seeds: Sequence[int]) -> str:
    """Returns a model's name in short lines, with the seed that is drawn of several."""
    several = f" (seed {seeds[0]})" if len(seeds) > 1 else ""
    return textwrap.fill(name + several, _TITLE_LENGTH)


def _panel_each(
    models: Sequence[dict[str, Any]],
    height_inches: float,
    draw: Callable[[Axes, dict[str, Any]], None],
) -> Figure:
    """Returns a figure with one panel per model, three in a line."""
    columns = min(len(models), 3)
    lines = -(-len(models) // columns)
    size = (3.6 * columns + 0.4, height_inches * lines + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(models) :]:
        ax.set_visible(False)
    for ax, model in zip(axes, models, strict=False):
        draw(ax, model)
    return figure


def _draw_reliability(ax: Axes, model: dict[str, Any]) -> None:
    found = model["voxels"]["calibration"]
    ax.plot([0, 1], [0, 1], color="0.55", linestyle=":")
    for source, (color, marker) in _SOURCE_STYLES.items():
        diagram = found[source]["near"]["reliability"]
        x, y = (
            np.array([np.nan if v is None else v for v in diagram[name]], float)
            for name in ("probability", "frequency")
        )
        ax.plot(x, y, color=color, marker=marker, markersize=4, linewidth=1)
    n = found["mean"]["near"]["n"][0]
    ax.set_title(f"{model['name']}\n{n:,} voxels near the boundary", fontsize=9)
    ax.set_xlabel("probability of foreground", fontsize=9)
    ax.set_ylabel("frequency of foreground", fontsize=9)
    ax.set_aspect("equal")
    style_axes(ax)


def _draw_referral(ax: Axes, model: dict[str, Any]) -> None:
    drawn = [_shown(model, name) for name in MEASURE_STYLES]
    for (_, color, dashes), curve in zip(MEASURE_STYLES.values(), drawn, strict=True):
        ax.plot(curve["referred"], curve["kept_dice"], color=color, dashes=dashes)
    # Where a measure is undefined in some cases the others have more of them.
    whole = max(drawn, key=lambda curve: len(curve["referred"]))
    ax.plot(whole["referred"], whole["oracle_dice"], color="black", linewidth=1)
    ax.plot(whole["referred"], whole["random_dice"], color="0.55", linestyle=":")
    name = title_of(model["name"], model["seeds"])
    ax.set_title(f"{name}, n = {model['dice']['test']['n'][0]}", fontsize=9)
    ax.set_xlabel("least certain cases referred (%)", fontsize=9)
    ax.set_ylabel("mean Dice of the kept", fontsize=9)
    style_axes(ax)


def _shown(model: dict[str, Any], name: str) -> dict[str, np.ndarray]:
    """Returns the curve as far as a few cases are kept; the share in percent."""
    curve = {k: np.array(v) for k, v in model["measures"][name]["referral"].items()}
    kept = max(len(curve["referred"]) - _FEWEST_KEPT + 1, 1)
    curve = {key: values[:kept] for key, values in curve.items()}
    return {**curve, "referred": 100 * curve["referred"]}


def _spread_axis(ax: Axes, values: np.ndarray) -> None:
    positive = values[values > 0]
    if len(positive) and positive.max() > 30 * positive.min():
        # Empty samples have CV 0, which a plain logarithmic axis would hide.
        ax.set_xscale("symlog", linthresh=float(positive.min()))


def _split_handles(rows: Sequence[Row] | None) -> list[Line2D]:
    """Entries of the splits, with n of the cases with a Dice where rows are given."""
    handles = []
    for split, (color, marker, size) in _SPLIT_STYLES.items():
        label = split
        if rows is not None:
            n = int(np.isfinite(cases_table.column(rows, "dice", split)).sum())
            label = f"{split} (n = {n})"
        style = {"color": color, "marker": marker, "markersize": size**0.5}
        handles.append(Line2D([], [], linestyle="none", label=label, **style))
    return handles
