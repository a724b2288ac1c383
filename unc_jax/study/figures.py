"""Figure 1, slices of cases: of one run, and of several models as the paper's.

Slices are shown as radiologists look at them: the patient's right on the left of the
picture, anterior up. Arrays are (x, y) of a RAS+ volume.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Patch

from unc_jax.data import files
from unc_jax.study.cases_table import Row
from unc_jax.study.grouping import Model
from unc_jax.study.panels import Panel, read_panel
from unc_jax.study.run_folder import TARGETS

# The largest value that -p log p takes, so that colours mean the same in every figure.
MAX_UNCERTAINTY = float(np.exp(-1))
# Blue, yellow, vermilion: apart with any colour vision (after Okabe and Ito, 2008).
OVERLAY = {
    "true positive": (0.10, 0.50, 0.95),
    "false positive": (1.00, 0.85, 0.00),
    "false negative": (0.90, 0.25, 0.00),
}
_OPACITY = 0.55
_DPI = 200
_SLICE_INCHES = 2.9  # width of one slice of one run
# Of several models; wider figures would be shrunk on a page until unreadable.
_WIDTH_INCHES, _LARGEST_SLICE_INCHES = 11.0, 1.75


def save(figure: Figure | None, path: Path) -> bool:
    """Writes a PNG whole, atomically; without a figure removes the old file instead."""
    if figure is None:
        path.unlink(missing_ok=True)
        return False
    with files.replacing(path) as temporary:
        figure.savefig(temporary, dpi=_DPI)
    return True


def add_legend(figure: Figure, handles: Sequence[Artist], *, columns: int) -> None:
    """Adds the legend of the whole figure, below it."""
    place = "outside lower center"
    figure.legend(handles=handles, loc=place, ncols=columns, fontsize=9, frameon=False)


def figure1(rows: list[Row], panels: Path) -> Figure | None:
    """Draws best, median and worst test case: segmentation above, uncertainty below.

    `panels` is the folder of CASE.npz. None when no test case has a Dice.
    """
    tests = _test_rows(rows)
    dice = {case: row["dice"] for case, row in tests.items()}
    chosen = choose_cases({case: float(d) for case, d in dice.items() if d is not None})
    if not chosen:
        return None
    slices = [read_panel(panels / f"{case}.npz") for case in chosen.values()]
    height = _SLICE_INCHES * max(panel.height_to_width for panel in slices)
    size = (_SLICE_INCHES * len(chosen) + 1.2, 2 * height + 0.9)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(2, len(chosen), squeeze=False)
    for rank, panel, (above, below) in zip(chosen, slices, axes.T, strict=True):
        draw_segmentation(above, panel)
        draw_uncertainty(below, panel)
        above.set_title(_panel_title(rank, tests[chosen[rank]]), fontsize=9)
    axes[0, 0].set_ylabel("segmentation", fontsize=9)
    axes[1, 0].set_ylabel("uncertainty", fontsize=9)
    _explain_colors(figure, axes[1, :], shrink=0.85)
    return figure


def figure1_of_models(models: Sequence[Model]) -> Figure | None:
    """Draws cases in rows: the image, then segmentation and uncertainty of each model.

    Targets stand one below the other, each with its own models, of which the first run
    (seed) is drawn. Only cases with a Dice and a slice on disk (RUN/panels) in every
    one of them; None when there are none.
    """
    lines = [
        (case, own)
        for target in TARGETS
        if (own := [model for model in models if model.target == target])
        for case in choose_cases(_common_dice(own)).values()
    ]
    if not lines:
        return None
    columns = 1 + 2 * max(len(shown) for _, shown in lines)
    width = min(_LARGEST_SLICE_INCHES, (_WIDTH_INCHES - 1) / columns)
    heights = [
        read_panel(_panel_path(shown[0], case)).height_to_width for case, shown in lines
    ]
    size = (width * columns + 1.0, width * sum(heights) + 0.45 * len(lines) + 0.6)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(lines), columns, squeeze=False, height_ratios=heights)
    for (case, shown), line in zip(lines, axes, strict=True):
        _draw_case(line, case, shown)
    _explain_colors(figure, axes, shrink=0.6, aspect=40)
    return figure


def choose_cases(dice: Mapping[str, float]) -> dict[str, str]:
    """Returns the cases of best, median and worst Dice, by those names.

    Of cases with the same Dice the first is the best and the last the worst. Fewer than
    three cases show fewer.
    """
    ordered = sorted(dice, key=lambda case: -dice[case])
    chosen = {}
    if ordered:
        places = {"best": 0, "worst": -1, "median": len(ordered) // 2}
        for rank, place in places.items():
            if ordered[place] not in chosen.values():
                chosen[rank] = ordered[place]
    return {
        rank: chosen[rank] for rank in ("best", "median", "worst") if rank in chosen
    }


def draw_segmentation(ax: Axes, panel: Panel) -> None:
    """Draws the slice in grey, its agreement with the reference in colour."""
    picture = _grey(panel)
    found, true = panel.prediction, panel.reference
    masks = (found & true, found & ~true, ~found & true)
    for mask, color in zip(masks, OVERLAY.values(), strict=True):
        picture[mask] = (1 - _OPACITY) * picture[mask] + _OPACITY * np.array(color)
    _show(ax, picture, panel)
    box = {"facecolor": "black", "alpha": 0.6, "pad": 1.5, "linewidth": 0}
    place = {"transform": ax.transAxes, "va": "center", "fontsize": 9}
    ax.text(0.03, 0.5, "R", color="white", bbox=box, **place)


def draw_uncertainty(ax: Axes, panel: Panel) -> AxesImage:
    """Draws U(x) of the slice on the scale 0 ... 1/e that all figures share."""
    values = np.asarray(panel.uncertainty, np.float32)
    return _show(ax, values, panel, cmap="inferno", vmin=0.0, vmax=MAX_UNCERTAINTY)


def _draw_case(line: np.ndarray, case: str, models: Sequence[Model]) -> None:
    """Draws one line of Figure 1: the image, then two slices of each model."""
    for index, model in enumerate(models):
        panel = read_panel(_panel_path(model, case))
        row = _test_rows(model.runs[0].rows)[case]
        if index == 0:
            _show(line[0], _grey(panel), panel)
            line[0].set_title(_two_lines(case), fontsize=8)
            line[0].set_ylabel(model.structure, fontsize=9)
        segmentation, uncertainty = line[1 + 2 * index : 3 + 2 * index]
        draw_segmentation(segmentation, panel)
        draw_uncertainty(uncertainty, panel)
        name = " ".join(filter(None, (model.loss, model.size, model.unusual)))
        segmentation.set_title(f"{name}\nDice {row['dice']:.3f}", fontsize=9)
        uncertainty.set_title(f"\n{_agreement(row)}", fontsize=9)
    for ax in line[1 + 2 * len(models) :]:
        ax.set_visible(False)


def _explain_colors(figure: Figure, axes: np.ndarray, **place: Any) -> None:
    """Adds the scale of the uncertainty, beside `axes`, and the legend of masks."""
    maps = [
        image for ax in axes.flat for image in ax.images if image.get_array().ndim == 2
    ]
    bar = figure.colorbar(maps[0], ax=axes, pad=0.02, **place)
    bar.set_label("uncertainty U(x) (nats)", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    handles = [Patch(color=color, label=name) for name, color in OVERLAY.items()]
    add_legend(figure, handles, columns=3)


def _grey(panel: Panel) -> np.ndarray:
    grey = np.asarray(panel.image, np.float32)
    low, high = np.percentile(grey, [1, 99.5])
    grey = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    return np.repeat(grey[..., None], 3, axis=-1)


def _show(ax: Axes, array: np.ndarray, panel: Panel, **style: Any) -> AxesImage:
    # RAS+: x grows to the patient's right, so x is flipped to put right on the left.
    picture, aspect = np.swapaxes(array[::-1], 0, 1), np.divide(*panel.spacing_mm[::-1])
    shown = ax.imshow(
        picture, origin="lower", aspect=aspect, interpolation="nearest", **style
    )
    ax.set(xticks=[], yticks=[])
    ax.set_anchor("N")  # titles in line, whatever the pixels' shape
    return shown


def _panel_title(rank: str, row: Row) -> str:
    case = _shortened(str(row["case"]), 28)
    # A Dice of 0 reads differently when there was nothing to find, or nothing found.
    empty = {"reference_ml": " (no reference)", "volume_ml": " (no prediction)"}
    note = "".join(text for name, text in empty.items() if row[name] == 0)
    return f"{rank}: {case}\nDice {row['dice']:.3f}{note}, {_agreement(row)}"


def _agreement(row: Row) -> str:
    d_pw = row["d_pw"]
    shown = "undefined" if d_pw is None else f"{d_pw:.3f}"
    return rf"$D_\mathrm{{pw}}$ {shown}"


def _two_lines(case: str, length: int = 13) -> str:
    """Returns a name that stays above its own column, broken before its number."""
    start, mark, number = case.rpartition("_")
    lines = [start, mark + number] if len(case) > length and start else [case]
    return "\n".join(_shortened(one, length) for one in lines)


def _shortened(name: str, length: int) -> str:
    # A dollar sign would start mathematics; a long name would run into its neighbour.
    name = name if len(name) <= length else name[: length - 1] + "…"
    return name.replace("$", r"\$")


def _common_dice(models: Sequence[Model]) -> dict[str, float]:
    """Returns the mean Dice over first runs, of cases that all of them can show."""
    tests = [_test_rows(model.runs[0].rows) for model in models]
    means = {}
    for case in tests[0]:
        dice = [rows[case]["dice"] for rows in tests]
        drawn = all(_panel_path(model, case).exists() for model in models)
        if drawn and None not in dice:
            means[case] = float(np.mean(np.array(dice, float)))
    return means


def _test_rows(rows: Sequence[Row]) -> dict[str, Row]:
    return {str(row["case"]): row for row in rows if row["split"] == "test"}


def _panel_path(model: Model, case: str) -> Path:
    parts = model.runs[0].parts
    own = next(part for part in parts if case in _test_rows(part.rows))
    return own.path / "panels" / f"{case}.npz"
