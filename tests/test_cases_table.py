import csv
import math

import numpy as np
import pytest

from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS, REVIEW_COLUMNS
from unc_jax.study.panels import Panel, read_panel, write_panel


def rows_of_two():
    return [
        cases_table.new_row(EVALUATION_COLUMNS, 
            case='liver, "odd"', split="test", n_samples=10, dice=0.1 + 0.2, cv=1e-300,
            d_pw=np.float64(1 / 3), u_labelled=math.nan, cv_roy=0.0, status="ok",
        ),
        cases_table.new_row(
            EVALUATION_COLUMNS, case="b", split="train", status="failed: no, memory"
        ),
    ]  # fmt: skip


def test_rows_read_back_bitwise(tmp_path):
    path = tmp_path / "cases.csv"
    cases_table.write_rows(path, rows_of_two(), EVALUATION_COLUMNS)
    assert cases_table.read_rows(path, EVALUATION_COLUMNS) == rows_of_two()
    assert [p.name for p in tmp_path.iterdir()] == ["cases.csv"]


def test_header_and_empty_fields(tmp_path):
    cases_table.write_rows(tmp_path / "cases.csv", rows_of_two(), EVALUATION_COLUMNS)
    with open(tmp_path / "cases.csv", newline="") as file:
        header, first, second = csv.reader(file)
    assert header[:15] == [
        *("case", "split", "n_samples", "dice", "cv", "d_pw", "u_labelled", "cv_roy"),
        *("u_labelled_binary", "predictive_entropy", "mutual_information"),
        *("volume_ml", "volume_sd_ml", "reference_ml", "status"),
    ]
    by_name = dict(zip(header, first, strict=True))
    assert by_name["dice"] == "0.30000000000000004"
    assert by_name["d_pw"] == "0.3333333333333333"
    assert by_name["u_labelled"] == ""
    assert by_name["cv_roy"] == "0.0"
    assert set(dict(zip(header, second, strict=True)).values()) == {
        *("b", "train", "failed: no, memory", "")
    }


def test_column_of_a_split_has_nan_where_undefined():
    found = cases_table.column(rows_of_two(), "dice", "train")
    np.testing.assert_array_equal(found, [math.nan])
    found = cases_table.column(rows_of_two(), "cv_roy")
    np.testing.assert_array_equal(found, [0.0, math.nan])


def test_unknown_column_is_refused():
    with pytest.raises(KeyError, match="score"):
        cases_table.new_row(EVALUATION_COLUMNS, case="a", score=1.0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: text.replace("dice", "score", 1), "no column dice"),
        (lambda text: text.replace("0.30", "0;30"), "line 2: dice is '0;30"),
        (lambda text: text[: text.index("failed")], "line 3: status is ''|volume_low"),
        (lambda text: text.replace(",", ";"), "line 1: separated by semicolons"),
        (lambda text: "", "no column"),
    ],
)
def test_a_spoilt_table_is_named(tmp_path, spoil, message):
    path = tmp_path / "cases.csv"
    cases_table.write_rows(path, rows_of_two(), EVALUATION_COLUMNS)
    path.write_text(spoil(path.read_text()))
    with pytest.raises(InputError, match=message):
        cases_table.read_rows(path, EVALUATION_COLUMNS)


def test_panel_reads_back(tmp_path):
    panel = Panel(
        image=np.arange(6, dtype=np.float16).reshape(2, 3),
        reference=np.eye(2, 3, dtype=bool),
        prediction=np.zeros((2, 3), bool),
        uncertainty=np.full((2, 3), 0.25, np.float16),
        spacing_mm=np.array([0.7, 1.5]),
        z=17,
    )
    write_panel(tmp_path / "panels" / "a.npz", panel)
    found = read_panel(tmp_path / "panels" / "a.npz")
    for one, other in zip(found, panel, strict=True):
        np.testing.assert_array_equal(one, other)
        assert type(one) is type(other)


def test_review_rows_are_read_back_bitwise(tmp_path):
    rows = [
        cases_table.new_row(
            REVIEW_COLUMNS, case="a", status="ok", d_pw=0.1 + 0.2, n_samples=10
        ),
        cases_table.new_row(
            REVIEW_COLUMNS, case="b, ä\n", status='failed: a "quote"', cv=np.float32(3)
        ),
    ]
    cases_table.write_rows(tmp_path / "cases.csv", rows, REVIEW_COLUMNS)
    assert cases_table.read_rows(tmp_path / "cases.csv", REVIEW_COLUMNS) == rows


@pytest.mark.parametrize("columns", [EVALUATION_COLUMNS, REVIEW_COLUMNS])
@pytest.mark.parametrize(
    "case", ["=1+1", "+x", "-x", "@SUM(A1)", "'plain", "\tx", "\uff1dx"]
)
def test_no_case_becomes_a_formula(tmp_path, columns, case):
    path = tmp_path / "cases.csv"
    cases_table.write_rows(path, [cases_table.new_row(columns, case=case)], columns)
    field = path.read_text().splitlines()[1].split(",")[0].strip('"')
    assert not field.startswith(("=", "+", "-", "@", "\t", "\uff1d"))
    assert cases_table.read_rows(path, columns)[0]["case"] == case


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,dice\na,1\n", "no column"),
        (",".join(REVIEW_COLUMNS) + "\na,,ok\n", "line 2: flag is None"),
        (",".join(REVIEW_COLUMNS) + "\na,,ok,no,,good" + "," * 18, "predicted_dice"),
    ],
)
def test_a_broken_review_table_is_named(tmp_path, text, message):
    path = tmp_path / "cases.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=f"cases.csv.*{message}"):
        cases_table.read_rows(path, REVIEW_COLUMNS)
    with pytest.raises(InputError, match="cannot be read"):
        cases_table.read_rows(tmp_path / "none.csv", REVIEW_COLUMNS)


HEADER = ",".join(EVALUATION_COLUMNS)


def edited(case="a", dice="0.9", cv="1", d_pw="", more=""):
    values = {"case": case, "split": "test", "dice": dice, "cv": cv, "status": "ok"}
    values["d_pw"] = d_pw
    fields = (values.get(name, "") for name in EVALUATION_COLUMNS)
    return ",".join(fields) + more


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{HEADER}\n{edited()}\n{edited('b', dice='93.1')}\n", "line 3: dice is 93.1"),
        (f"{HEADER}\n{edited(dice='-0.1')}\n", "line 2: dice is -0.1, must lie in 0"),
        (f"{HEADER}\n{edited(dice='inf')}\n", "line 2: dice is 'inf', not a number"),
        (f"{HEADER}\n{edited(dice='nan')}\n", "line 2: dice is 'nan', not a number"),
        (f"{HEADER}\n{edited(dice='93 %')}\n", "line 2: dice is '93 %', not a number"),
        (f"{HEADER}\n{edited(cv='-inf')}\n", "line 2: cv is '-inf', not a number"),
        (f"{HEADER}\n{edited()}\n{edited()}\n", "line 3: case a has several rows"),
        (f"{HEADER}\n{edited()}\n{edited('a ')}\n", "line 3: case a  has several rows"),
        (f"{HEADER}\n{edited(d_pw='1.7')}\n", "line 2: d_pw is 1.7, must lie in 0"),
        (f"{HEADER}\n{edited(more=',7')}\n", "line 2: more fields than columns"),
        (HEADER.replace(",", ";") + "\n", "line 1: separated by semicolons"),
    ],
)
def test_an_edited_table_is_named_with_its_line(tmp_path, text, message):
    path = tmp_path / "cases.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as raised:
        cases_table.read_rows(path, EVALUATION_COLUMNS)
    assert "\n" not in str(raised.value)


def test_a_table_that_a_spreadsheet_saved_is_read(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_bytes(f"\ufeff{HEADER}\r\n{edited()}\r\n".encode())
    (row,) = cases_table.read_rows(path, EVALUATION_COLUMNS)
    assert (row["case"], row["dice"]) == ("a", 0.9)


def test_a_table_from_before_a_measure_was_added_can_be_read(tmp_path):
    path = tmp_path / "cases.csv"
    cases_table.write_rows(path, rows_of_two(), EVALUATION_COLUMNS)
    assert cases_table.has_all_columns(path, EVALUATION_COLUMNS)
    older = [name for name in EVALUATION_COLUMNS if name != "cv_roy"]
    cases_table.write_rows(path, rows_of_two(), older)
    assert not cases_table.has_all_columns(path, EVALUATION_COLUMNS)
    expected = [{**row, "cv_roy": None} for row in rows_of_two()]
    assert cases_table.read_rows(path, EVALUATION_COLUMNS) == expected


def test_quality_is_calibrated_with_the_delivered_masks_if_all_have_a_dice():
    rows = [{"dice": 0.5, "dice_scan": 0.6}, {"dice": None, "dice_scan": None}]
    found = cases_table.with_delivered_dice(rows)
    assert [row["dice"] for row in found] == [0.6, None]
    rows.append({"dice": 0.7, "dice_scan": None})
    assert cases_table.with_delivered_dice(rows) == rows


def test_empty_lines_of_a_spreadsheet_are_no_cases(tmp_path):
    path = tmp_path / "cases.csv"
    cases_table.write_rows(path, rows_of_two(), EVALUATION_COLUMNS)
    with path.open("a") as file:
        file.write("," * (len(EVALUATION_COLUMNS) - 1) + "\n\n")
    assert cases_table.read_rows(path, EVALUATION_COLUMNS) == rows_of_two()
