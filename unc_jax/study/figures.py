"""Figures 1 and 2 of a run, drawn from its rows and panels; files are PNG.

Slices are shown as radiologists look at them: the patient's right on the left of the
picture, anterior up. Arrays are (x, y) of a RAS+ volume.
"""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from unc_jax.data import files
from unc_jax.study import cases_table, metrics, statistics
from unc_jax.study.cases_table import Panel, Row
from unc_jax.study.tables import format_p

# The largest value that -p log p takes, so that colours mean the same in every figure.
MAX_UNCERTAINTY = float(np.exp(-1))
# Blue, yellow, vermilion: apart with any colour vision (after Okabe and Ito, 2008).
OVERLAY = {
    "true_positive": ((0.10, 0.50, 0.95), "true positive"),
    "false_positive": ((1.00, 0.85, 0.00), "false positive"),
    "false_negative": ((0.90, 0.25, 0.00), "false negative"),
}
_OPACITY = 0.55
_DPI = 200
_WIDTH_INCHES = 2.9  # of one slice
MEASURE_LABELS = {
    "cv": "coefficient of variation CV (voxels)",
    "d_pw": r"mean pairwise Dice $D_\mathrm{pw}$",
    "u_labelled": r"mean labelled uncertainty $U_\mathrm{labelled}$ (nats)",
}
# Colour and shape both tell the splits apart; test is drawn last, on top.
_SPLIT_STYLES = {
    "train": ("#8da0b3", "s", 14),
    "validation": ("#e08214", "^", 22),
    "test": ("#1f4e9c", "o", 22),
}


def figure1(rows: list[Row], panels: Path, path: Path) -> Path | None:
    """Best, median and worst test case by Dice: segmentation above, uncertainty below.

    `panels` is the folder of CASE.npz. Ties go to the earlier case; fewer than three
    cases show fewer. None, and no file, when no test case has a Dice.
    """
    chosen = choose_cases(rows)
    if not chosen:
        path.unlink(missing_ok=True)
        return None
    slices = [
        cases_table.read_panel(panels / f"{r['case']}.npz") for r in chosen.values()
    ]
    height = _WIDTH_INCHES * max(_height_to_width(panel) for panel in slices)
    size = (_WIDTH_INCHES * len(chosen) + 1.2, 2 * height + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    drawn = zip(chosen.items(), slices, axes.T, strict=True)
    for (rank, row), panel, (above, below) in drawn:
        draw_segmentation(above, panel)
        draw_uncertainty(below, panel)
        above.set_title(_panel_title(rank, row), fontsize=9)
    axes[0, 0].set_ylabel("segmentation", fontsize=9)
    axes[1, 0].set_ylabel("uncertainty", fontsize=9)
    bar = figure.colorbar(axes[1, 0].images[0], ax=axes[1, :], shrink=0.85, pad=0.02)
    bar.set_label("U(x) (nats)", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    figure.legend(
        handles=[Patch(color=color, label=label) for color, label in OVERLAY.values()],
        loc="outside lower center",
        ncols=3,
        fontsize=9,
        frameon=False,
    )
    return save(figure, path)


def figure2(rows: list[Row], path: Path) -> Path:
    """Dice against CV, D_pw and U_labelled for all cases, coloured by split.

    Titles give Spearman's rho, p and n of the test cases. CV is on a logarithmic axis
    when it spans orders of magnitude. Cases without one of the two values are left out.
    """
    figure = Figure(figsize=(11.0, 4.0), layout="constrained")
    axes = figure.subplots(1, len(MEASURE_LABELS), sharey=True)
    for ax, (measure, label) in zip(axes, MEASURE_LABELS.items(), strict=True):
        draw_scatter(ax, rows, measure)
        ax.set_xlabel(label, fontsize=9)
    axes[0].set_ylabel("segmentation quality (Dice)", fontsize=9)
    figure.legend(
        handles=split_handles(rows),
        loc="outside lower center",
        ncols=len(_SPLIT_STYLES),
        fontsize=9,
        frameon=False,
    )
    return save(figure, path)


def choose_cases(rows: list[Row]) -> dict[str, Row]:
    """Best, median and worst of the test rows with a Dice, by those names."""
    scored = [r for r in rows if r["split"] == "test" and r["dice"] is not None]
    scored.sort(key=lambda row: -float(row["dice"] or 0.0))
    if not scored:
        return {}
    places = {"best": 0, "median": len(scored) // 2, "worst": len(scored) - 1}
    chosen, seen = {}, set()
    for rank in ("best", "worst", "median"):
        if places[rank] not in seen:
            seen.add(places[rank])
            chosen[rank] = scored[places[rank]]
    return {rank: chosen[rank] for rank in places if rank in chosen}


def draw_image(ax: Axes, panel: Panel) -> None:
    """The slice in grey, alone."""
    _show(ax, _grey(panel), panel)


def draw_segmentation(ax: Axes, panel: Panel) -> None:
    """The slice in grey, true and false positives and false negatives in colour."""
    picture = _grey(panel)
    for name, mask in (
        metrics.agreement(panel.prediction, panel.reference)._asdict().items()
    ):
        color = np.array(OVERLAY[name][0])
        picture[mask] = (1 - _OPACITY) * picture[mask] + _OPACITY * color
    _show(ax, picture, panel)
    box = {"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0}
    place = {"transform": ax.transAxes, "va": "center", "fontsize": 9}
    ax.text(0.03, 0.5, "R", color="white", bbox=box, **place)


def draw_uncertainty(ax: Axes, panel: Panel) -> AxesImage:
    """U(x) of the slice on the scale 0 ... 1/e that all figures share."""
    values = np.asarray(panel.uncertainty, np.float32)
    return _show(ax, values, panel, cmap="inferno", vmin=0.0, vmax=MAX_UNCERTAINTY)


def draw_scatter(ax: Axes, rows: list[Row], measure: str) -> None:
    """Dice against one measure, one mark per case, with the test correlation above."""
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
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(alpha=0.25, linewidth=0.5)
    ax.set_axisbelow(True)


def _grey(panel: Panel) -> np.ndarray:
    grey = np.asarray(panel.image, np.float32)
    low, high = np.percentile(grey, [1, 99.5])
    grey = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat(grey[..., None], 3, axis=-1)


def _show(ax: Axes, array: np.ndarray, panel: Panel, **style: Any) -> AxesImage:
    # RAS+: x grows to the patient's right, so x is flipped to put right on the left.
    width, height = panel.spacing_mm
    shown = ax.imshow(
        np.swapaxes(array[::-1], 0, 1),
        origin="lower",
        aspect=float(height / width),
        interpolation="nearest",
        **style,
    )
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_anchor("N")  # titles in line, whatever the pixels' shape
    return shown


def _height_to_width(panel: Panel) -> float:
    width, height = panel.image.shape * panel.spacing_mm
    return float(height / width)


def _panel_title(rank: str, row: Row) -> str:
    case = str(row["case"])
    # A dollar sign would start mathematics; a long name would run into its neighbour.
    case = (case if len(case) <= 28 else case[:27] + "…").replace("$", r"\$")
    # A Dice of 0 reads differently when there was nothing to find, or nothing found.
    empty = {"reference_ml": " (no reference)", "volume_ml": " (no prediction)"}
    note = "".join(text for name, text in empty.items() if row[name] == 0)
    d_pw = "undefined" if row["d_pw"] is None else f"{row['d_pw']:.3f}"
    quality = rf"Dice {row['dice']:.3f}{note}, $D_\mathrm{{pw}}$ {d_pw}"
    return f"{rank}: {case}\n{quality}"


def _spread_axis(ax: Axes, values: np.ndarray) -> None:
    positive = values[values > 0]
    if len(positive) and positive.max() > 30 * positive.min():
        # Empty samples have CV 0, which a plain logarithmic axis would hide.
        ax.set_xscale("symlog", linthresh=float(positive.min()))


def split_handles(rows: list[Row] | None) -> list[Line2D]:
    """Legend entries of the splits, with n of the cases that have a Dice if given."""
    handles = []
    for split, (color, marker, size) in _SPLIT_STYLES.items():
        label = split
        if rows is not None:
            n = int(np.isfinite(cases_table.column(rows, "dice", split)).sum())
            label = f"{split} (n = {n})"
        style = {"color": color, "marker": marker, "markersize": size**0.5}
        handles.append(Line2D([], [], linestyle="none", label=label, **style))
    return handles


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG whole, atomically; returns its path."""
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)
    return path
