from string import ascii_lowercase

import numpy as np
import pytest

from benchmarks.between_settings import table
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.cases_table import new_row

DICE = np.linspace(0.5, 0.9, 20)


def rows(d_pw, cases=ascii_lowercase):
    return [
        new_row(EVALUATION_COLUMNS, case=case, split="test", dice=a, d_pw=b, cv=-b)
        for case, a, b in zip(cases, DICE, d_pw, strict=False)
    ]


def test_settings_are_compared_on_the_same_cases_in_any_order():
    noise = np.random.default_rng(0).random(20)
    weak = [rows(noise), rows(noise)[::-1]]
    (line,) = table({"good": [rows(DICE), rows(DICE)], "weak": weak}).rows
    name, cv, d_pw, u_labelled = map(str, line)
    assert name == "good - weak"
    assert cv == d_pw  # -cv is D_pw here: strengths have one sign
    rho = np.corrcoef(np.argsort(np.argsort(noise)), range(20))[0, 1]
    assert d_pw.startswith(f"{1 - rho:.2f} (")
    assert u_labelled.startswith("n/a")
    (same,) = table({"one": weak, "other": weak}).rows
    assert str(same[2]) == "0.00 (0.00 to 0.00)"


def test_runs_of_other_cases_are_not_compared():
    with pytest.raises(ValueError, match="the same test cases"):
        table({"one": [rows(DICE)], "other": [rows(DICE, ascii_lowercase[1:])]})
