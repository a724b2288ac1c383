"""Models that differ in a setting, beside the one they vary."""

import numpy as np
import pytest
from scipy import stats
from test_compare import FAST, command, grouped, write_run

from unc_jax.study import case_columns, cases_table, comparison, factors, tables
from unc_jax.study.charts import MEASURE_STYLES

USUAL = {"model.features": 8, "train.steps": 500, "train.learning_rate": 0.1}


def write(folder, **changes):
    own = {"noise": changes.pop("noise", 1.0), "seed": changes.pop("seed", 0)}
    return write_run(folder, **own, **{**USUAL, **changes})


def write_study(root):
    base = [write(root / f"base{seed}", seed=seed) for seed in (0, 1)]
    wide = write(root / "wide", noise=3.0, **{"model.features": 64})
    long = write(root / "long", noise=0.1, **{"train.steps": 700})
    return [long, *base, wide]


def test_the_base_is_what_most_settings_share(tmp_path):
    found = comparison.compare(grouped(*write_study(tmp_path)), resamples=FAST)
    (models,) = factors.groups(found)
    assert [factors.label(one, models[0]) for one in models] == [
        "base",
        "features 64",
        "steps 700",
    ]
    assert len(models[0]["seeds"]) == 2
    (table,) = factors.factors_tables(found)
    assert [row[:2] for row in table.rows] == [
        ["base", "2"],
        ["features 64", "1"],
        ["steps 700", "1"],
    ]
    assert "features 8, steps 500)" in table.caption


def test_a_name_tells_only_what_differs_from_most_models(tmp_path):
    write_study(tmp_path)
    names = {"base0": "", "wide": "model.features=64", "long": "train.steps=700"}
    folders = [tmp_path / name for name in names]
    found = comparison.compare(grouped(*folders), resamples=FAST)
    start = found["models"][0]["name"].split(" ")[0] + " large dice"
    assert {one["name"] for one in found["models"]} == {
        " ".join(filter(None, (start, words))) for words in names.values()
    }
    two = comparison.compare(grouped(*folders[:2]), resamples=FAST)
    assert {one["unusual"] for one in two["models"]} == {
        "model.features=8",
        "model.features=64",
    }


def test_numbers_are_those_of_the_rows(tmp_path):
    folders = write_study(tmp_path)
    found = comparison.compare(grouped(*folders), resamples=FAST)
    wide = next(
        one for one in found["models"] if one["settings"]["model.features"] == 64
    )
    rows = cases_table.read_rows(
        folders[-1] / "cases.csv", case_columns.EVALUATION_COLUMNS
    )
    dice = cases_table.column(rows, "dice", "test")
    d_pw = cases_table.column(rows, "d_pw", "test")
    worse = dice < np.median(dice)
    halves = wide["measures"]["d_pw"]["rho_by_half"]
    for name, chosen in (("worse", worse), ("better", ~worse)):
        expected = stats.spearmanr(d_pw[chosen], dice[chosen]).statistic
        assert halves[name]["mean"] == pytest.approx(expected)
    assert wide["dice"]["test"]["sd_of_cases"] == pytest.approx(np.std(dice))
    text = tables.markdown(factors.factors_tables(found))
    line = next(one for one in text.splitlines() if one.startswith("| features 64"))
    assert f"({np.std(dice):.3f})" in line
    assert f"| {stats.spearmanr(d_pw, dice).statistic:.2f} (" in line


def test_models_without_other_settings_have_no_factors(tmp_path):
    found = comparison.compare(grouped(write(tmp_path / "one")), resamples=FAST)
    assert factors.factors_tables(found) == []
    assert factors.factors_figure(found) is None


def test_the_figure_shows_every_setting(tmp_path):
    folders = [*write_study(tmp_path), write(tmp_path / "slow", **{"train.steps": 9})]
    found = comparison.compare(grouped(*folders), resamples=FAST)
    figure = factors.factors_figure(found)
    assert figure is not None
    words = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert words[0] == "base"
    assert sorted(words[1:]) == ["features 64", "steps 700", "steps 9"]
    name = "d_pw"
    drawn = figure.axes[list(MEASURE_STYLES).index(name)].lines
    ticks = {line.get_ydata()[0]: line.get_xdata()[0] for line in drawn if marked(line)}
    (models,) = factors.groups(found)
    expected = [one["measures"][name]["reliability"]["ceiling"] for one in models]
    assert [ticks[place] for place in range(len(models))] == expected
    assert figure.axes[0].get_xlim()[0] < -1  # a measure of the wrong sign is seen


def marked(line):
    return line.get_marker() == "|"


def test_compare_writes_and_removes_them(tmp_path):
    folders = write_study(tmp_path)
    command(*folders, "--output", tmp_path / "out")
    assert "| steps 700 |" in (tmp_path / "out" / "factors.md").read_text()
    assert (tmp_path / "out" / "factors.png").exists()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "with one setting changed" in page
    command(folders[1], folders[2], "--output", tmp_path / "out")
    assert not (tmp_path / "out" / "factors.md").exists()
    assert not (tmp_path / "out" / "factors.png").exists()
