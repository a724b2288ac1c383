import json

import pytest

from unc_jax.study import cases_table, paper_tables, tables
from unc_jax.study.appraisal import summarise
from unc_jax.study.case_columns import EVALUATION_COLUMNS


def row_of(case, split, dice, **values):
    status = values.pop("status", "ok")
    return cases_table.new_row(
        EVALUATION_COLUMNS, case=case, split=split, dice=dice, status=status, **values
    )


def test_summary_counts_and_correlates_complete_cases():
    nan = float("nan")
    rows = [
        row_of("a", "test", 0.9, cv=1.0, d_pw=0.9, u_labelled=0.1),
        row_of("b", "test", 0.8, cv=2.0, d_pw=0.8, u_labelled=nan),
        row_of("c", "test", 0.7, cv=3.0, d_pw=0.85, u_labelled=nan),
        row_of("d", "test", nan, cv=4.0, d_pw=0.6, u_labelled=0.3),
        row_of("e", "test", nan, status="failed: odd"),
        row_of("g", "test", 0.0, status="empty"),
        row_of("f", "train", 0.95, cv=1.0, d_pw=0.9, u_labelled=0.1),
    ]
    summary = summarise(rows, resamples=200)
    assert list(summary) == ["train", "test"]
    test = summary["test"]
    assert (test["n"], test["n_failed"], test["n_defined"]) == (6, 1, 4)
    assert test["dice"]["mean"] == pytest.approx(0.6)
    low, high = test["dice"]["ci95"]
    assert 0 <= low < 0.6 < high < 0.901
    assert test["measures"]["cv"]["rho"] == pytest.approx(-1)
    assert test["measures"]["cv"]["n"] == 3
    # Ranks (3, 2, 1) and (3, 1, 2).
    assert test["measures"]["d_pw"]["rho"] == pytest.approx(0.5)
    assert test["measures"]["u_labelled"] == {
        "rho": None,
        "p": None,
        "ci95": None,
        "n": 1,
        "reliability": None,
    }
    assert summary["train"]["dice"] == {"mean": 0.95, "ci95": None}
    json.dumps(summary, allow_nan=False)


def test_table_puts_the_paper_below_the_run():
    one = {"rho": -0.5, "p": 0.00123, "ci95": None, "n": 55}
    one["reliability"] = {"value": 0.38}
    other = {"rho": 0.85, "p": 9.46e-16, "ci95": None, "n": 55}
    none = {"rho": None, "p": None, "ci95": None, "n": 2}
    summary = {
        "train": {"dice": {"mean": 0.961}},
        "test": {
            "dice": {"mean": 0.937},
            "measures": {"cv": one, "d_pw": other, "u_labelled": none},
        },
    }

    def lines_of(summary, patch, target="liver"):
        made = paper_tables.run_table(
            summary, loss="wcc", patch=patch, shape=(256,) * 3, target=target
        )
        return tables.markdown([made]).splitlines()

    lines = lines_of(summary, (128, 128, 16))
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2] == (
        "| this run (liver) | wcc | large 128x128x16 | 0.94 (0.96) "
        "| -0.50 (0.0012) | 0.85 (9.5e-16) | n/a | 2 | 0.38 / n/a / n/a |"
    )
    assert lines[3] == (
        "| paper (liver) | wcc | large | 0.94 (0.96) "
        "| -0.77 (5.4e-12) | 0.89 (5.6e-20) | -0.69 (6.9e-09) | n/a | n/a |"
    )
    # A quarter of the width is nearer to the paper's small patches.
    assert lines_of(summary, [64, 64, 64])[3].startswith(
        "| paper (liver) | wcc | small"
    )
    assert len(lines_of(summary, [64, 64, 16], "tumor")) == 3  # not in the paper
    del one["reliability"]  # of an earlier version
    assert lines_of(summary, (128, 128, 16))[2].endswith("| not measured |")
    assert (
        "| n/a (n/a) | n/a | n/a | n/a | n/a | n/a |" in lines_of({}, (32, 32, 32))[2]
    )


def test_a_table_with_everything_around_it():
    one = tables.Table(
        "title", ("a", "b"), [["1", tables.Strong("2", " ±")]], "caption", "notes:",
        ["x", "y"], "closing",
    )  # fmt: skip
    assert tables.markdown([one, tables.Table("", caption="next")]) == (
        "caption\n\n| a | b |\n| --- | --- |\n| 1 | **2** ± |\n\nnotes:\n\n- x\n- y\n\n"
        "closing\n\nnext\n"
    )


@pytest.mark.parametrize(
    ("p", "text"),
    [(9.5e-05, "9.5e-05"), (0.038, "0.038"), (1.1e-4, "1.1e-04"), (0.5, "0.5")],
)
def test_p_values_read_as_in_the_paper(p, text):
    assert tables.format_p(p) == text
