from string import ascii_lowercase

import numpy as np
import pytest

from benchmarks.within_patients import concordance, table
from unc_jax.study.case_columns import EVALUATION_COLUMNS
from unc_jax.study.cases_table import new_row


def test_concordance_is_the_share_of_pairs_in_the_order_of_dice():
    dice = np.array([[0.9, 0.8, 0.7], [0.5, 0.5, 0.4], [0.9, np.nan, 0.1], [0.3] * 3])
    strength = np.array([[3, 2, 2.5], [1, 2, 2], [1, 2, np.nan], [1, 2, 3]])
    expected = [2 / 3, (0 + 0.5) / 2, np.nan, np.nan]
    np.testing.assert_allclose(concordance(strength, dice), expected)


def rows(dice, d_pw):
    return [
        new_row(EVALUATION_COLUMNS, case=case, split="test", dice=a, d_pw=b, cv=-b)
        for case, a, b in zip(ascii_lowercase, dice, d_pw, strict=False)
    ]


def test_structures_are_joined_by_patient():
    dice = [0.9, 0.8, 0.95, 0.85, 0.92, 0.83]
    easy = rows(dice, [0.99, 0.97, 0.96, 0.98, 0.95, 0.94])
    dice = [0.5, 0.6, 0.4, 0.7, 0.3, 0.65]
    hard = rows(dice, dice)
    found = table({"easy": easy, "hard": hard[::-1]})
    cells = {
        str(line[0]): [str(cell).split()[0] for cell in line] for line in found.rows
    }
    assert cells["D_pw"] == ["D_pw", "-0.03", "1.00", "0.87", "1.00"]
    assert cells["CV"][1:] == ["0.03", "-1.00", "-0.87", "1.00"]
    assert found.caption == "6 patients; mean Dice: easy 0.88, hard 0.53."


def test_structures_of_a_patient_are_drawn_together():
    dice, noise = np.random.default_rng(0).random((2, 20))
    one = rows(dice, dice + noise)
    (line,) = (line for line in table({"one": one, "same": one}).rows if "D_pw" in line)
    alone, again, pooled = line[1:4]
    assert alone == again == pooled  # twice the same ranks, in every resample


def test_other_patients_are_refused():
    one = rows([0.9, 0.8, 0.95, 0.85], [0.99, 0.97, 0.96, 0.98])
    with pytest.raises(ValueError, match="same patients"):
        table({"one": one, "other": one[:3]})
    with pytest.raises(ValueError, match="two structures"):
        table({"one": one})
