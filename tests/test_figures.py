import numpy as np
import pytest
from matplotlib import image as images
from matplotlib.figure import Figure

from unc_jax.study import cases_table, charts, figures
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.panels import Panel, write_panel


def panel(spacing_mm=(1.0, 1.0)):
    """10 x 6 pixels: reference at high x (patient's right), prediction one further."""
    reference = np.zeros((10, 6), bool)
    reference[7:9, 2:4] = True
    prediction = np.roll(reference, 1, axis=0)
    return Panel(
        image=np.zeros((10, 6), np.float16),
        reference=reference,
        prediction=prediction,
        uncertainty=np.linspace(0, 0.3, 60).reshape(10, 6).astype(np.float16),
        spacing_mm=np.array(spacing_mm),
        z=0,
    )


def rows_of(dices, split="test"):
    return [
        cases_table.new_row(EVALUATION_COLUMNS, 
            case=f"{split}_{i}", split=split, dice=d, cv=i + 1.0, d_pw=0.9,
            u_labelled=0.1 + i / 100, status="ok",
        )
        for i, d in enumerate(dices)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("dices", "expected"),
    [
        ([0.5, 0.9, 0.7], {"best": 1, "median": 2, "worst": 0}),
        ([0.5, 0.9, 0.7, None, 0.8, 0.2], {"best": 1, "median": 2, "worst": 5}),
        ([0.9, 0.5], {"best": 0, "worst": 1}),
        ([0.5], {"best": 0}),
        ([None], {}),
        ([0.5, 0.5, 0.5], {"best": 0, "median": 1, "worst": 2}),
    ],
)
def test_best_median_and_worst(dices, expected):
    known = {str(place): dice for place, dice in enumerate(dices) if dice is not None}
    chosen = figures.choose_cases(known)
    assert {rank: int(case) for rank, case in chosen.items()} == expected
    assert list(chosen) == [r for r in ("best", "median", "worst") if r in expected]


def test_right_is_left_and_anterior_is_up():
    ax = Figure().subplots()
    figures.draw_segmentation(ax, panel())
    (shown,) = ax.images
    picture = np.asarray(shown.get_array())
    assert picture.shape == (6, 10, 3)  # rows are y, columns x
    assert shown.origin == "lower"  # y grows upwards
    left = picture[2]
    # x = 9 is drawn first: false positive, then true positive, false negative.
    for place, name in enumerate(("false positive", "true positive", "false negative")):
        color = np.array(figures.OVERLAY[name])
        np.testing.assert_allclose(left[place] / left[place].max(), color / color.max())
    assert left[3:].max() == 0


@pytest.mark.parametrize(("spacing_mm", "aspect"), [((1, 1), 1.0), ((0.5, 2), 4.0)])
def test_pixels_have_the_shape_of_the_spacing(spacing_mm, aspect):
    ax = Figure().subplots()
    shown = figures.draw_uncertainty(ax, panel(spacing_mm))
    assert ax.get_aspect() == aspect
    assert shown.get_clim() == pytest.approx((0, np.exp(-1)))


@pytest.mark.parametrize("dices", [[0.9], [0.9, 0.5], [0.9, 0.5, 0.7, 0.8]])
def test_figure_1_is_written(tmp_path, dices):
    rows = rows_of(dices)
    rows[0]["case"] = "cost $5_and_a_name_that_is_far_too_long_for_one_column"
    for row in rows:
        write_panel(tmp_path / f"{row['case']}.npz", panel((0.7, 1.0)))
    path = tmp_path / "figures" / "figure1.png"
    assert figures.save(figures.figure1(rows, tmp_path), path)
    height, width, _ = images.imread(path).shape
    assert width > 600
    # Two slices of 10 x 6 pixels of 0.7 x 1 mm above each other, titles and legend.
    assert height == pytest.approx(200 * (2 * 2.9 * 6 / 7 + 0.9), abs=2)
    assert [p.name for p in path.parent.iterdir()] == ["figure1.png"]


def test_figure_1_without_a_dice_removes_the_old_one(tmp_path):
    old = tmp_path / "figure1.png"
    old.write_bytes(b"old")
    assert not figures.save(figures.figure1(rows_of([None]), tmp_path), old)
    assert not old.exists()


def test_scatter_shows_the_test_correlation():
    ax = Figure().subplots()
    rows = rows_of([0.9, 0.8, 0.7, 0.6]) + rows_of([0.1, 0.9, None], "train")
    charts.draw_scatter(ax, rows, "u_labelled")
    assert ax.get_title() == "test: $\\rho$ = \N{MINUS SIGN}1.00 (p = 0), n = 4"
    drawn = [np.ma.getmaskarray(one.get_offsets()) for one in ax.collections]
    assert [int((~mask.any(axis=1)).sum()) for mask in drawn] == [2, 0, 4]


def test_legend_names_the_splits_that_were_evaluated():
    tests, train = rows_of([0.9, 0.8]), rows_of([0.7], "train")
    for rows, expected in (
        (tests, ["test (n = 2)"]),
        (tests + train, ["train (n = 1)", "test (n = 2)"]),
    ):
        (legend,) = charts.figure2({"": rows}).legends
        assert [one.get_text() for one in legend.get_texts()] == expected


@pytest.mark.parametrize("dices", [[], [None, None], [0.5], [0.9, 0.4, 0.7]])
def test_figure_2_is_written_whatever_there_is(tmp_path, dices):
    figures.save(charts.figure2({"": rows_of(dices)}), tmp_path / "figure2.png")
    assert images.imread(tmp_path / "figure2.png").shape[1] > 1500


def test_labels_name_measures_and_units():
    ax = Figure().subplots()
    charts.draw_scatter(ax, rows_of([0.9, 0.8, 0.7]), "u_labelled")
    label = r"mean labelled uncertainty $U_\mathrm{labelled}$ (nats)"
    assert ax.get_xlabel() == label
    assert charts.in_mathematics("CV (Roy)") == "CV (Roy)"


def test_coefficients_of_many_sizes_get_a_logarithmic_axis():
    rows = rows_of([0.9, 0.8, 0.7])
    ax = Figure().subplots()
    charts.draw_scatter(ax, rows, "cv")
    assert ax.get_xscale() == "linear"
    rows[1]["cv"], rows[2]["cv"] = 0.0, 500.0
    charts.draw_scatter(ax, rows, "cv")
    assert ax.get_xscale() == "symlog"
