"""Figures 1 and 2 of several models, laid out as the paper's, and referral curves.

Of several runs (seeds) of a model the first is drawn.
"""

import textwrap
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from unc_jax.errors import InputError
from unc_jax.study import cases_table, figures, run_folder
from unc_jax.study.cases_table import Panel, Row
from unc_jax.study.models import Model
from unc_jax.study.run_folder import TARGETS, Run
from unc_jax.uncertainty.measures import PAPER_MEASURES

# Wider figures would be shrunk on a page until their text could not be read.
_WIDTH_INCHES = 11.0
_LARGEST_PANEL_INCHES = 1.75
_FEWEST_KEPT = 5  # a mean over fewer cases is noise
_TITLE_LENGTH = 44  # characters beside or above one panel
# Colour and dashes both tell the measures apart.
MEASURE_STYLES = {
    "cv": ("CV", "#e08214", (4, 2)),
    "d_pw": (r"$D_\mathrm{pw}$", "#1f4e9c", (1, 0)),
    "u_labelled": (r"$U_\mathrm{labelled}$", "#5aae61", (6, 2, 1, 2)),
}


def choose_cases(models: Sequence[Model]) -> list[str]:
    """Best, median and worst test case by mean Dice over the models of one target.

    Only cases with a Dice and a slice on disk in every model; fewer when there are
    fewer, ties to the earlier case.
    """
    tests = [_test_rows(model.runs[0]) for model in models]
    means = {}
    for case in tests[0]:
        dices = [rows[case]["dice"] for rows in tests]
        drawn = all(_panel_path(model.runs[0], case).exists() for model in models)
        if drawn and None not in dices:
            means[case] = float(np.mean([float(d) for d in dices if d is not None]))
    ordered = sorted(means, key=lambda case: -means[case])
    places = sorted({0, len(ordered) // 2, len(ordered) - 1}) if ordered else []
    return [ordered[place] for place in places]


def figure1(models: Sequence[Model], path: Path) -> Path | None:
    """Cases in rows; the image, then of each model segmentation and uncertainty map.

    Targets stand one below the other, each with its own models. All maps share one
    colour scale. None, and no file, when no slices (RUN/panels) are on disk.
    """
    rows = [
        (case, [model for model in models if model.target == target])
        for target in TARGETS
        for case in _cases_of(target, models)
    ]
    if not rows:
        path.unlink(missing_ok=True)
        return None
    columns = 1 + 2 * max(len(shown) for _, shown in rows)
    panel = min(_LARGEST_PANEL_INCHES, (_WIDTH_INCHES - 1) / columns)
    heights = [_height_to_width(case, shown[0]) for case, shown in rows]
    height = panel * sum(heights) + 0.45 * len(rows) + 0.6
    size = (panel * columns + 1.0, height)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, height_ratios=heights)
    maps = []
    for (case, shown), line in zip(rows, axes, strict=True):
        maps += _draw_case(line, case, shown)
    bar = figure.colorbar(maps[0], ax=axes, shrink=0.6, aspect=40, pad=0.02)
    bar.set_label("uncertainty U(x) (nats)", fontsize=10)
    figure.legend(
        handles=[Patch(color=c, label=label) for c, label in figures.OVERLAY.values()],
        loc="outside lower center",
        ncols=3,
        fontsize=10,
        frameon=False,
    )
    return figures.save(figure, path)


def figure2(models: Sequence[Model], path: Path, *, policy: str = "exclude") -> Path:
    """Dice against CV, D_pw and U_labelled, a row per model, splits in colour."""
    figure = Figure(figsize=(11.0, 3.2 * len(models) + 0.6), layout="constrained")
    axes = figure.subplots(len(models), len(PAPER_MEASURES), squeeze=False)
    rows: list[Row] = []
    for model, line in zip(models, axes, strict=True):
        rows = run_folder.with_empty_cases(model.runs[0].rows, policy)
        for ax, measure in zip(line, PAPER_MEASURES, strict=True):
            figures.draw_scatter(ax, rows, measure)
            ax.set_xlabel(figures.MEASURE_LABELS[measure], fontsize=9)
            ax.sharey(line[0])
        name = _title(model.name, [run.seed for run in model.runs])
        line[0].set_ylabel(f"{name}\nsegmentation quality (Dice)", fontsize=9)
    figure.legend(
        handles=figures.split_handles(rows if len(models) == 1 else None),
        loc="outside lower center",
        ncols=3,
        fontsize=9,
        frameon=False,
    )
    return figures.save(figure, path)


def referral_figure(statistics: dict[str, Any], path: Path) -> Path:
    """Mean Dice of the kept cases against the share referred to a human, per model.

    A measure that is undefined in some cases has its curve over the others.
    statistics: what `comparison.compare` returns.
    """
    models = statistics["models"]
    columns = min(len(models), 3)
    lines = -(-len(models) // columns)
    size = (3.6 * columns + 0.4, 3.0 * lines + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax in axes[len(models) :]:
        ax.set_visible(False)
    for ax, model in zip(axes, models, strict=False):
        _draw_referral(ax, model)
    handles = [
        Line2D([], [], color="black", linewidth=1, label="oracle (worst first)"),
        *(
            Line2D([], [], color=color, dashes=dashes, label=label)
            for label, color, dashes in MEASURE_STYLES.values()
        ),
        Line2D([], [], color="0.55", linestyle=":", label="random"),
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=5, fontsize=9, frameon=False
    )
    return figures.save(figure, path)


def _draw_referral(ax: Axes, model: dict[str, Any]) -> None:
    drawn = [_shown(model, name) for name in MEASURE_STYLES]
    for (_, color, dashes), curve in zip(MEASURE_STYLES.values(), drawn, strict=True):
        ax.plot(curve["referred"], curve["kept_dice"], color=color, dashes=dashes)
    # Where a measure is undefined in some cases the others have more of them.
    whole = max(drawn, key=lambda curve: len(curve["referred"]))
    ax.plot(whole["referred"], whole["oracle_dice"], color="black", linewidth=1)
    ax.plot(whole["referred"], whole["random_dice"], color="0.55", linestyle=":")
    name = _title(model["name"], model["seeds"])
    ax.set_title(f"{name}, n = {model['dice']['test']['n'][0]}", fontsize=9)
    ax.set_xlabel("least certain cases referred (%)", fontsize=9)
    ax.set_ylabel("mean Dice of the kept", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.5)


def _shown(model: dict[str, Any], name: str) -> dict[str, np.ndarray]:
    """The referral curve as far as a few cases are kept; the share in percent."""
    curve = {k: np.array(v) for k, v in model["measures"][name]["referral"].items()}
    kept = max(len(curve["referred"]) - _FEWEST_KEPT + 1, 1)
    curve = {key: values[:kept] for key, values in curve.items()}
    return {**curve, "referred": 100 * curve["referred"]}


def _draw_case(line: np.ndarray, case: str, models: Sequence[Model]) -> list[Any]:
    """One row of Figure 1; returns its uncertainty maps."""
    panels = [_panel(m.runs[0], case) for m in models]
    figures.draw_image(line[0], panels[0])
    line[0].set_title(_two_lines(case), fontsize=8)
    line[0].set_ylabel(models[0].structure, fontsize=9)
    maps = []
    for index, (model, panel) in enumerate(zip(models, panels, strict=True)):
        segmentation, uncertainty = line[1 + 2 * index : 3 + 2 * index]
        row = _test_rows(model.runs[0])[case]
        figures.draw_segmentation(segmentation, panel)
        maps.append(figures.draw_uncertainty(uncertainty, panel))
        segmentation.set_title(f"{_short(model)}\nDice {row['dice']:.3f}", fontsize=9)
        uncertainty.set_title(f"\n{_agreement(row)}", fontsize=9)
    for ax in line[1 + 2 * len(models) :]:
        ax.set_visible(False)
    return maps


def _two_lines(case: str, length: int = 13) -> str:
    """A case name that stays above its own column; broken before its number."""
    start, mark, number = case.rpartition("_")
    lines = [start, mark + number] if len(case) > length and start else [case]
    kept = [one if len(one) <= length else one[: length - 1] + "…" for one in lines]
    return "\n".join(kept).replace("$", r"\$")


def _agreement(row: Row) -> str:
    d_pw = row["d_pw"]
    shown = "undefined" if d_pw is None else f"{d_pw:.3f}"
    return rf"$D_\mathrm{{pw}}$ {shown}"


def _cases_of(target: str, models: Sequence[Model]) -> list[str]:
    own = [model for model in models if model.target == target]
    return choose_cases(own) if own else []


def _height_to_width(case: str, model: Model) -> float:
    panel = _panel(model.runs[0], case)
    width, height = panel.image.shape * panel.spacing_mm
    return float(height / width)


def _test_rows(run: Run) -> dict[str, Row]:
    return {str(row["case"]): row for row in run.rows if row["split"] == "test"}


def _panel_path(run: Run, case: str) -> Path:
    return run.path / "panels" / f"{case}.npz"


def _panel(run: Run, case: str) -> Panel:
    path = _panel_path(run, case)
    try:
        return cases_table.read_panel(path)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{path}: is no slice of a case ({cause})") from None


def _short(model: Model) -> str:
    return " ".join(filter(None, (model.loss, model.size, model.variant)))


def _title(name: str, seeds: Sequence[int]) -> str:
    """Says which of several seeds is drawn; long names of variants get lines."""
    several = f" (seed {seeds[0]})" if len(seeds) > 1 else ""
    return textwrap.fill(name + several, _TITLE_LENGTH)
