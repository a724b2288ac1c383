"""Factors of a study: compares models that differ in a setting with their base model.

The base is the model whose settings most models share. `content` is that of
statistics.json.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from unc_jax.data.split import natural_order
from unc_jax.study import split_half
from unc_jax.study.charts import MEASURE_STYLES, in_mathematics, style_axes
from unc_jax.study.figures import add_legend
from unc_jax.study.tables import UNDEFINED, Table, interval, number
from unc_jax.uncertainty.measures import MEASURES, PAPER_MEASURES

_CEILING_STYLE: dict[str, Any] = {
    "color": "0.3",
    "marker": "|",
    "markersize": 12,
    "linestyle": "none",
}
_LABELS = " / ".join(MEASURES[name].label for name in PAPER_MEASURES)


def groups(content: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """Groups the models of each target, loss and patch that differ in a setting.

    The base comes first, the others by name and value of the setting. Ensembles and
    models without another one in their group are left out.
    """
    by_name: dict[tuple, list[dict[str, Any]]] = {}
    for model in content["models"]:
        if not model["source"] or model["source"].startswith("MC dropout"):
            name = (model["target"], model["loss"], model["size"])
            by_name.setdefault(name, []).append(model)
    return [_base_first(models) for models in by_name.values() if len(models) > 1]


def _base_first(models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = list(models[0]["settings"])
    usual = {
        name: Counter(str(one["settings"][name]) for one in models).most_common(1)[0][0]
        for name in names
    }

    def unusual(model: dict[str, Any]) -> int:
        return sum(str(model["settings"][name]) != usual[name] for name in names)

    base = min(models, key=unusual)
    others = {label(one, base): one for one in models if one is not base}
    return [base, *(others[name] for name in natural_order(others))]


def label(model: Mapping[str, Any], base: Mapping[str, Any]) -> str:
    """Returns the settings in which a model differs from the base, or "base"."""
    own, other = model["settings"], base["settings"]
    changed = [name for name in own if own[name] != other[name]]
    return ", ".join(f"{_short(name)} {own[name]}" for name in changed) or "base"


def factors_tables(content: Mapping[str, Any]) -> list[Table]:
    """Returns a table per group: rho of each measure, and its reliability."""
    header = (
        *("setting", "seeds", "Dice (sd of cases)"),
        *(f"rho {MEASURES[name].label} (95 %)" for name in PAPER_MEASURES),
        f"AUGRC {_LABELS}",
        split_half.HEADER,
        f"between seeds {_LABELS}",
        f"rho, worse half {_LABELS}",
        f"rho, better half {_LABELS}",
    )
    return [_table(models, header) for models in groups(content)]


def _table(models: Sequence[dict[str, Any]], header: Sequence[str]) -> Table:
    base = models[0]
    settings = ", ".join(f"{_short(k)} {v}" for k, v in base["settings"].items())
    return Table(
        "What moves the correlations",
        header,
        [_row(model, base) for model in models],
        f"One setting at a time, against the base ({base['loss']}, {base['size']}: "
        f"{settings}); the same {base['n_test']} test cases. rho: Spearman's with "
        "Dice, mean over seeds; intervals over cases and seeds. Reliability r: "
        "expected correlation of the measure with itself on N other samples; rho is "
        "not expected to exceed its root. Between seeds: correlation of the measure "
        "with itself in another training; what it lacks to r is due to training. Worse "
        "and better half: the test cases below, and not below, the median Dice.",
    )


def _row(model: dict[str, Any], base: dict[str, Any]) -> list[str]:
    measures = model["measures"]
    test = model["dice"]["test"]

    def each(*path: str, form: str = ".2f") -> str:
        return " / ".join(_number(measures[one], path, form) for one in PAPER_MEASURES)

    return [
        label(model, base),
        str(len(model["seeds"])),
        f"{number(test['mean'])} ({number(test['sd_of_cases'], '.3f')})",
        *(
            f"{number(measures[one]['rho']['mean'])} "
            f"({interval(measures[one]['ci95'])})"
            for one in PAPER_MEASURES
        ),
        each("augrc", "mean", form=".4f"),
        split_half.cell_of_paper_measures(measures),
        each("rho_between_seeds"),
        each("rho_by_half", "worse", "mean"),
        each("rho_by_half", "better", "mean"),
    ]


def _number(found: Any, path: Sequence[str], form: str) -> str:
    for name in path:
        found = found and found[name]
    return UNDEFINED if found is None else number(found, form)


def _short(name: str) -> str:
    return name.split(".")[-1].replace("_", " ")


def factors_figure(content: Mapping[str, Any]) -> Figure | None:
    """Plots strength and interval of each measure by setting; None without groups.

    Strength is rho, with the sign reversed where its expected sign is negative. A tick
    marks the largest value that the measure's reliability allows.
    """
    found = groups(content)
    if not found:
        return None
    lines = sum(map(len, found))
    figure = Figure(figsize=(10.0, 0.34 * lines + 1.6), layout="constrained")
    axes = figure.subplots(
        len(found),
        len(PAPER_MEASURES),
        squeeze=False,
        sharex=True,
        sharey="row",
        height_ratios=[len(models) for models in found],
    )
    for models, row in zip(found, axes, strict=True):
        for ax, name in zip(row, PAPER_MEASURES, strict=True):
            _draw(ax, models, name)
    handles = [
        Line2D([], [], color="0.3", marker="o", label="strength, 95 % interval"),
        Line2D([], [], label="root of its reliability", **_CEILING_STYLE),
    ]
    add_legend(figure, handles, columns=2)
    return figure


def _draw(ax: Axes, models: Sequence[dict[str, Any]], name: str) -> None:
    sign, style = MEASURES[name].sign, MEASURE_STYLES[name]
    for place, model in enumerate(models):
        found = model["measures"][name]
        rho, ends = found["rho"]["mean"], found["ci95"]
        if rho is not None:
            ax.plot([sign * rho], [place], marker="o", color=style["color"])
        if ends is not None:
            ax.plot(sign * np.array(ends), [place, place], color=style["color"], lw=1.5)
        if found.get("reliability"):
            ceiling = found["reliability"]["ceiling"]
            ax.plot([ceiling], [place], **_CEILING_STYLE)
    ax.axvline(0, color="0.55", linestyle=":")
    ax.set_yticks(range(len(models)), [label(one, models[0]) for one in models])
    ax.set_ylim(len(models) - 0.5, -0.5)
    ax.set_xlim(-1.05, 1.05)
    style_axes(ax, x=f"strength of {in_mathematics(MEASURES[name].label)}")
