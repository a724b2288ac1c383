import numpy as np
import pytest

from unc_jax.errors import InputError
from unc_jax.review import worklist


def row(case, status="ok", flag="no", lower=None, predicted=None):
    return worklist.new_row(
        case=case,
        status=status,
        flag=flag,
        dice_lower=lower,
        predicted_dice=predicted,
    )


def test_rows_are_read_back_bitwise(tmp_path):
    rows = [
        worklist.new_row(case="a", status="ok", d_pw=0.1 + 0.2, n_samples=10),
        worklist.new_row(case="b, ä\n", status='failed: a "quote"', cv=np.float32(3)),
    ]
    worklist.write_rows(tmp_path / "cases.csv", rows)
    assert worklist.read_rows(tmp_path / "cases.csv") == rows


def test_undefined_numbers_are_empty_fields(tmp_path):
    worklist.write_rows(tmp_path / "cases.csv", [worklist.new_row(cv=float("nan"))])
    line = (tmp_path / "cases.csv").read_text().splitlines()[1]
    assert set(line) == {","}
    with pytest.raises(KeyError, match="no such column"):
        worklist.new_row(color=1)


@pytest.mark.parametrize("case", ["=1+1", "+x", "-x", "@SUM(A1)", "'plain", "\tx"])
def test_no_case_becomes_a_formula(tmp_path, case):
    path = tmp_path / "cases.csv"
    worklist.write_rows(path, [worklist.new_row(case=case)])
    field = path.read_text().splitlines()[1].split(",")[0].strip('"')
    assert not field.startswith(("=", "+", "-", "@", "\t"))
    assert worklist.read_rows(path)[0]["case"] == case


def test_worst_come_first():
    rows = [
        row("fine", lower=0.9, predicted=0.95),
        row("flagged", flag="yes", lower=0.99, predicted=0.99),
        row("unbounded", flag="yes", predicted=0.9),
        row("worse", flag="yes", lower=0.2, predicted=0.9),
        row("broken", status="failed: truncated", flag="yes"),
        row("better", lower=0.95, predicted=0.95),
    ]
    names = [one["case"] for one in worklist.order(rows)]
    assert names == ["broken", "unbounded", "worse", "flagged", "fine", "better"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,dice\na,1\n", "no column"),
        (",".join(worklist.COLUMNS) + "\na,ok\n", "line 2: flag is None"),
        (",".join(worklist.COLUMNS) + "\na,ok,no,,good" + "," * 18, "predicted_dice"),
    ],
)
def test_a_broken_table_is_named(tmp_path, text, message):
    path = tmp_path / "cases.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"cases.csv.*{message}"):
        worklist.read_rows(path)
    with pytest.raises(InputError, match="cannot be read"):
        worklist.read_rows(tmp_path / "none.csv")
