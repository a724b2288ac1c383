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

from unc_jax.study import statistics
from unc_jax.study.cases_table import Row, column
from unc_jax.study.figures import add_legend
from unc_jax.study.tables import format_p
from unc_jax.study.voxel_agreement import PROBABILITIES
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

# Colour and shape both tell the splits apart; test is drawn last, on top.
_SPLIT_STYLES = {
    "train": ("#8da0b3", "s", 14),
    "validation": ("#e08214", "^", 22),
    "test": ("#1f4e9c", "o", 22),
}
# Colour and marker both tell the probabilities apart.
_PROBABILITY_STYLES: dict[str, dict[str, Any]] = {
    "mean": {"color": "#1f4e9c", "marker": "o"},
    "single": {"color": "#e08214", "marker": "s"},
}
_REFERENCE_STYLE: dict[str, Any] = {"color": "0.55", "linestyle": ":"}
_FEWEST_KEPT = 5  # a mean over fewer cases is noise
_ENTRIES = 2  # of a legend, in the width of a panel
_TITLE_LENGTH = 44  # characters beside or above one panel


def in_mathematics(text: str) -> str:
    """Returns a label with its symbols as Matplotlib sets mathematics: D_pw."""
    return re.sub(r"\b([A-Z])_(\w+)", r"$\1_\\mathrm{\2}$", text)


# Colour and dashes both tell the measures apart.
MEASURE_STYLES: dict[str, dict[str, Any]] = {
    name: {"label": in_mathematics(MEASURES[name].label), "color": color, "dashes": on}
    for name, (color, on) in zip(
        PAPER_MEASURES,
        cycle([("#e08214", (4, 2)), ("#1f4e9c", (1, 0)), ("#5aae61", (6, 2, 1, 2))]),
        strict=False,
    )
}


def style_axes(ax: Axes, *, title: str = "", x: str = "", y: str = "") -> None:
    """Sets title and labels, small ticks, two spines and a faint grid."""
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9)
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
    handles = []
    for split, (color, marker, size) in _SPLIT_STYLES.items():
        if not any(row["split"] == split for rows in rows_of.values() for row in rows):
            continue  # evaluated were others alone
        label = split
        if alone is not None:
            n = int(np.isfinite(column(alone, "dice", split)).sum())
            label = f"{split} (n = {n})"
        style = {"color": color, "marker": marker, "markersize": size**0.5}
        handles.append(Line2D([], [], linestyle="none", label=label, **style))
    if handles:
        add_legend(figure, handles, columns=len(handles))
    return figure


def draw_scatter(ax: Axes, rows: Sequence[Row], measure: str) -> None:
    """Draws Dice against one measure, a mark per case, the test correlation above."""
    for split, (color, marker, size) in _SPLIT_STYLES.items():
        values, dice = column(rows, measure, split), column(rows, "dice", split)
        ax.scatter(
            values, dice, s=size, c=color, marker=marker, alpha=0.85, linewidths=0
        )
    rho, p, n = statistics.spearman(
        column(rows, measure, "test"), column(rows, "dice", "test")
    )
    found = "undefined" if rho is None else f"{rho:.2f} (p = {format_p(p)})"
    found = found.replace("-", "\N{MINUS SIGN}")
    ax.locator_params(axis="x", nbins=6)
    values = column(rows, measure)
    positive = values[values > 0]
    if measure == "cv" and len(positive) and positive.max() > 30 * positive.min():
        # Empty samples have CV 0, which a plain logarithmic axis would hide.
        ax.set_xscale("symlog", linthresh=float(positive.min()))
    one = MEASURES[measure]
    unit = f" ({one.unit})" if one.unit else ""
    style_axes(
        ax,
        title=rf"test: $\rho$ = {found}, n = {n}",
        x=in_mathematics(one.title) + unit,
    )
    ax.set_axisbelow(True)


def referral_figure(content: dict[str, Any]) -> Figure:
    """Draws mean Dice of the kept cases against the share referred to a human.

    A panel per model. A measure that is undefined in some cases has its curve over the
    others. content: of statistics.json.
    """
    handles = [
        Line2D([], [], color="black", linewidth=1, label="oracle (worst first)"),
        *(Line2D([], [], **style) for style in MEASURE_STYLES.values()),
        Line2D([], [], label="random", **_REFERENCE_STYLE),
    ]
    return _panel_each(content["models"], 3.0, _draw_referral, handles)


def reliability_figure(content: dict[str, Any]) -> Figure | None:
    """Draws frequency of foreground against probability, near the boundary.

    A panel per model that has voxels.json, a mark per bin of probability; None without
    such a model. content: of statistics.json.
    """
    models = [model for model in content["models"] if model["voxels"]]
    if not models:
        return None
    handles = [
        *(
            Line2D([], [], label=PROBABILITIES[name], **style)
            for name, style in _PROBABILITY_STYLES.items()
        ),
        Line2D([], [], label="calibrated", **_REFERENCE_STYLE),
    ]
    return _panel_each(models, 3.5, _draw_reliability, handles)


def title_of(name: str, seeds: Sequence[object]) -> str:
    """Returns a model's name in short lines, with the seed that is drawn of several."""
    several = f" (seed {seeds[0]})" if len(seeds) > 1 else ""
    return textwrap.fill(name + several, _TITLE_LENGTH)


def _panel_each(
    models: Sequence[dict[str, Any]],
    height_inches: float,
    draw: Callable[[Axes, dict[str, Any]], None],
    handles: list[Line2D],
) -> Figure:
    """Returns a figure with one panel per model, three in a line, and a legend."""
    columns = min(len(models), 3)
    lines = -(-len(models) // columns)
    size = (3.6 * columns + 0.4, height_inches * lines + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(models) :]:
        ax.set_visible(False)
    for ax, model in zip(axes, models, strict=False):
        draw(ax, model)
    add_legend(figure, handles, columns=min(len(handles), _ENTRIES * columns))
    return figure


def _draw_reliability(ax: Axes, model: dict[str, Any]) -> None:
    found = model["voxels"]["calibration"]
    ax.plot([0, 1], [0, 1], **_REFERENCE_STYLE)
    for name, style in _PROBABILITY_STYLES.items():
        diagram = found[name]["near"]["reliability"]
        x, y = (np.array(diagram[axis], float) for axis in ("probability", "frequency"))
        ax.plot(x, y, markersize=4, linewidth=1, **style)
    near = f"{found['mean']['near']['n'][0]:,} voxels near the boundary"
    words = [f"{one} of foreground" for one in ("probability", "frequency")]
    title = f"{title_of(model['name'], ())}\n{near}"
    style_axes(ax, title=title, x=words[0], y=words[1])


def _draw_referral(ax: Axes, model: dict[str, Any]) -> None:
    curves = [model["measures"][name]["referral"] for name in MEASURE_STYLES]
    # Where a measure is undefined in some cases the others have more of them.
    whole = max(curves, key=lambda curve: len(curve["referred"]))

    def plot(curve: dict[str, list[float]], line: str, **style: Any) -> None:
        # Only as far as a few cases are kept.
        kept = max(len(curve["referred"]) - _FEWEST_KEPT + 1, 1)
        ax.plot(100 * np.array(curve["referred"][:kept]), curve[line][:kept], **style)

    for curve, style in zip(curves, MEASURE_STYLES.values(), strict=True):
        plot(curve, "kept_dice", **style)
    plot(whole, "oracle_dice", color="black", linewidth=1)
    plot(whole, "random_dice", **_REFERENCE_STYLE)
    name = title_of(model["name"], model["seeds"])
    style_axes(
        ax,
        title=f"{name}, n = {model['dice']['test']['n'][0]}",
        x="least certain cases referred (%)",
        y="mean Dice of the kept",
    )
