"""Figures of a run's variants: the number of samples, and the windows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from unc_jax.study.charts import MEASURE_STYLES, style_axes
from unc_jax.study.figures import add_legend
from unc_jax.study.variants import Described, Variant

_STRENGTH = "Spearman's rho with Dice ({} test cases)"
# Groups whose variants differ by how they cut windows.
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
    for shift, (name, style) in enumerate(MEASURE_STYLES.items()):
        found = [by_count[count]["measures"][name] for count in counts]
        style = {**style, "marker": "o", "markersize": 4}
        means = _floats(found, "mean")
        level.plot(counts, means / (means[-1] or np.nan), **style)
        # Side by side, or the bars hide each other.
        places = np.array(counts) * 1.04 ** (shift - 1)
        strength.plot(places, _floats(found, "rho"), **style)
        strength.vlines(places, *_ends(found), color=style["color"], alpha=0.5)
    strength.axhline(0, color="0.55", linewidth=0.8)
    for ax in (level, strength):
        ax.set_xscale("log")
        ax.set_xticks(counts, [str(count) for count in counts])
        ax.minorticks_off()
    words = f"mean of the measure, over that at N = {counts[-1]}"
    style_axes(level, x="samples N", y=words)
    style_axes(strength, x="samples N", y=_STRENGTH.format(same[0][1]["n"]))
    level.legend(fontsize=9, frameon=False)
    return figure


def windows_figure(described: Sequence[Described]) -> Figure | None:
    """Plots mean Dice and rho with Dice for each kind of windows, the cheapest first.

    Bars as in `samples_figure`. Returns None for a single kind.
    """
    listed = [one for one in described if one[0].group in _WINDOW_GROUPS]
    if len(listed) < 2:
        return None
    listed.sort(key=lambda one: -one[1]["work"])
    places = np.arange(len(listed))
    figure = Figure(figsize=(10.0, 1.2 + 0.38 * len(listed)), layout="constrained")
    dice, strength = figure.subplots(1, 2, sharey=True)
    dice.plot([found["dice"] for _, found in listed], places, "o", color="black")
    for shift, (name, style) in enumerate(MEASURE_STYLES.items()):
        found = [numbers["measures"][name] for _, numbers in listed]
        own, color = places + 0.22 * (1 - shift), style["color"]
        marks = {"color": color, "label": style["label"], "markersize": 5}
        strength.plot(_floats(found, "rho"), own, "ov^"[shift], **marks)
        strength.hlines(own, *_ends(found), color=color, alpha=0.5)
    strength.axvline(0, color="0.55", linewidth=0.8)
    n = listed[0][1]["n"]
    style_axes(dice, x=f"mean Dice ({n} test cases)")
    style_axes(strength, x=_STRENGTH.format(n))
    dice.set_yticks(places, [_window_label(*one) for one in listed], fontsize=8)
    add_legend(figure, strength.get_legend_handles_labels()[0], columns=3)
    return figure


def _window_label(variant: Variant, found: dict[str, Any]) -> str:
    name = f"{variant.group} {variant.name}".replace("window ", "").strip()
    return f"{name}: work {found['work']:.2f}"


def _floats(found: Sequence[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([one[name] for one in found], float)  # None becomes NaN


def _ends(found: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.transpose([one["ci95"] or (np.nan, np.nan) for one in found])
