"""Charts of variants: measures and correlations by number of samples and by windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unc_jax.study.charts import MEASURE_STYLES, add_legend, style_axes
from unc_jax.study.variants import Variant

Described = tuple[Variant, dict[str, Any]]  # and what `variants.describe` found

_WINDOW_GROUPS = ("as evaluated", "overlap", "window")


def samples_figure(described: Sequence[Described]) -> Figure | None:
    """Draws mean measures relative to the largest N, and rho with Dice, against N.

    Bars are 95 % bootstrap intervals over cases. None when only one number of samples
    was evaluated.
    """
    same = [one for one in described if one[0].group in ("as evaluated", "samples N")]
    by_count = {found["samples"]: found for _, found in same}
    counts = sorted(by_count)
    if len(counts) < 2:
        return None
    figure = Figure(figsize=(9.0, 3.8), layout="constrained")
    level, strength = figure.subplots(1, 2)
    for shift, (name, (label, color, dashes)) in enumerate(MEASURE_STYLES.items()):
        found = [by_count[count]["measures"][name] for count in counts]
        last = found[-1]["mean"] or np.nan
        means = [np.nan if one["mean"] is None else one["mean"] / last for one in found]
        style = {"color": color, "dashes": dashes, "marker": "o", "markersize": 4}
        level.plot(counts, means, label=label, **style)
        # Side by side, or the bars hide each other.
        places = np.array(counts) * 1.04 ** (shift - 1)
        rho = np.array([np.nan if one["rho"] is None else one["rho"] for one in found])
        strength.plot(places, rho, label=label, **style)
        ends = [one["ci95"] or (np.nan, np.nan) for one in found]
        strength.vlines(places, *np.transpose(ends), color=color, alpha=0.5)
    n = same[0][1]["n"]
    level.set_ylabel(f"mean of the measure, over that at N = {counts[-1]}", fontsize=9)
    strength.set_ylabel(f"Spearman's rho with Dice ({n} test cases)", fontsize=9)
    strength.axhline(0, color="0.55", linewidth=0.8)
    for ax in (level, strength):
        ax.set_xscale("log")
        ax.set_xticks(counts, [str(count) for count in counts])
        ax.minorticks_off()
        ax.set_xlabel("samples N", fontsize=9)
        style_axes(ax)
    level.legend(fontsize=9, frameon=False)
    return figure


def windows_figure(described: Sequence[Described]) -> Figure | None:
    """Draws a line per way to cut windows, cheapest first: mean Dice, rho with Dice.

    Bars as in `samples_figure`. None when there is but one way.
    """
    listed = [one for one in described if one[0].group in _WINDOW_GROUPS]
    if len(listed) < 2:
        return None
    listed.sort(key=lambda one: -one[1]["work"])
    places = np.arange(len(listed))
    figure = Figure(figsize=(10.0, 1.2 + 0.38 * len(listed)), layout="constrained")
    dice, strength = figure.subplots(1, 2, sharey=True)
    dice.plot([found["dice"] for _, found in listed], places, "o", color="black")
    dice.set_yticks(places, [_window_label(*one) for one in listed], fontsize=8)
    for shift, (name, (label, color, _)) in enumerate(MEASURE_STYLES.items()):
        found = [numbers["measures"][name] for _, numbers in listed]
        rho = [np.nan if one["rho"] is None else one["rho"] for one in found]
        ends = [one["ci95"] or (np.nan, np.nan) for one in found]
        own = places + 0.22 * (1 - shift)
        strength.plot(rho, own, "ov^"[shift], color=color, label=label, markersize=5)
        strength.hlines(own, *np.transpose(ends), color=color, alpha=0.5)
    strength.axvline(0, color="0.55", linewidth=0.8)
    n = listed[0][1]["n"]
    dice.set_xlabel(f"mean Dice ({n} test cases)", fontsize=9)
    strength.set_xlabel(f"Spearman's rho with Dice ({n} test cases)", fontsize=9)
    for ax in (dice, strength):
        style_axes(ax)
    add_legend(figure, strength.get_legend_handles_labels()[0], columns=3)
    return figure


def _window_label(variant: Variant, found: dict[str, Any]) -> str:
    name = f"{variant.group} {variant.name}".replace("window ", "").strip()
    return f"{name}: work {found['work']:.2f}"
