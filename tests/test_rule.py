import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unc_jax.errors import InputError
from unc_jax.review import quality, rule
from unc_jax.review.rule import Rule
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS


def row(status="ok", lower=0.95, predicted=0.95, unlike="", case="a", d_pw=None):
    return cases_table.new_row(
        REVIEW_COLUMNS,
        case=case,
        d_pw=d_pw,
        status=status,
        dice_lower=lower,
        predicted_dice=predicted,
        unlike=unlike,
    )


@pytest.mark.parametrize(
    ("one", "wanted", "flag", "reason"),
    [
        (row(lower=0.899), Rule(0.9), "yes", "lower bound 0.899 < 0.9"),
        (row(lower=0.83), Rule(0.9), "yes", "lower bound 0.830 < 0.9"),
        (row(lower=0.9), Rule(0.9), "no", ""),
        (row(lower=None), Rule(0.9, level=0.95), "yes", "no lower bound at level 0.95"),
        (row(lower=None), Rule(), "no", ""),
        (row(unlike="cv"), Rule(), "yes", "unlike the training cases: cv"),
        (row("empty", None, None), Rule(), "yes", "empty segmentation"),
        (row("no_liver", None, None), Rule(), "yes", "no liver found"),
        (row("failed: truncated", None, None), Rule(0.9), "yes", "failed"),
    ],
)
def test_reasons(one, wanted, flag, reason):
    decided = rule.decide([one], wanted, {})[0]
    assert (decided["flag"], decided["reason"]) == (flag, reason)


def test_the_worst_fraction_is_flagged():
    rows = [row(predicted=p) for p in (0.9, 0.5, 0.7, 0.8, None)]
    decided = rule.decide(rows, Rule(review_fraction=0.6), {})
    assert [one["flag"] for one in decided] == ["no", "yes", "yes", "no", "yes"]
    assert decided[1]["reason"] == "worst 60 %"
    assert {
        one["flag"] for one in rule.decide(rows, Rule(review_fraction=0.0), {})
    } == {"no"}


def test_failed_and_unlike_cases_count_among_the_worst():
    rows = [
        row(predicted=0.1, case="bad"),
        row(predicted=0.2, case="second"),
        row(predicted=0.9, unlike="cv", case="unlike"),
        row("failed: truncated", None, None, case="failed"),
        *(row(predicted=0.95, case=str(i)) for i in range(6)),
    ]
    decided = rule.decide(rows, Rule(review_fraction=0.3), {})
    flagged = {one["case"] for one in decided if one["flag"] == "yes"}
    assert flagged == {"bad", "unlike", "failed"}


MODEL = quality.fit(
    [
        {"dice": 0.5 + d / 20, "d_pw": d / 10, "cv": 1, "u_labelled": 1, "split": s}
        for s, d in itertools.product(("train", "validation"), (1, 1, 1, 5, 5, 9))
    ]
)
_SHARE = st.one_of(st.floats(0, 1), st.sampled_from([0.1, 0.2, 0.3, 0.7]))


@given(st.lists(st.sampled_from(range(-4, 10)), max_size=40), _SHARE, st.booleans())
def test_the_fraction_is_exact_whatever_the_ties(kinds, fraction, has_model):
    """Steps of the map, equal scores, failed and unlike cases, in any number."""
    model = MODEL if has_model else None
    rows = []
    for index, kind in enumerate(kinds):
        one = row(
            "failed: x" if kind == -1 else "ok",
            predicted=None,
            unlike="cv" if kind == -2 else "",
            case=f"c{index % 7}",
        )
        one.update(d_pw=None if kind == -3 else kind / 10, cv=1, u_labelled=1)
        rows.append(quality.with_estimate(one, model, 0.8))
    decided = rule.decide(
        rows, Rule(review_fraction=fraction), {"": model} if model else {}
    )
    flagged = sum(one["flag"] == "yes" for one in decided)
    unlike = (-1, -2, -3) if has_model else (-1, -2)  # a missing measure: no bound
    anyway = sum(kind in unlike for kind in kinds)
    product = fraction * len(kinds)
    near = round(product)
    if fraction == round(fraction, 3):
        # 0.1 x 30 is 3, not the 3.0000000000000004 of floats.
        allowed = {math.ceil(Fraction(str(fraction)) * len(kinds))}
    else:
        allowed = (
            {near, near + 1} if abs(product - near) < 1e-4 else {math.ceil(product)}
        )
    assert flagged in {max(one, anyway) for one in allowed}


@pytest.mark.parametrize(("count", "flagged"), [(1, 1), (10, 1), (11, 2), (30, 3)])
def test_a_tenth_of_equal_cases_is_a_tenth(count, flagged):
    rows = [row(case=f"c{index}") for index in range(count)]
    decided = rule.decide(rows, Rule(review_fraction=0.1), {})
    assert sum(one["flag"] == "yes" for one in decided) == flagged


def test_ties_are_broken_by_the_score_then_by_d_pw_then_by_name():
    """Both middle cases lie on one step of the map, whose score still tells them."""
    rows = []
    for name, d_pw in (("b", 0.95), ("a", 0.95), ("c", 0.92)):
        one = row(predicted=None, case=name, d_pw=d_pw)
        rows.append(
            quality.with_estimate({**one, "cv": 1, "u_labelled": 1}, MODEL, 0.8)
        )
    assert len({one["predicted_dice"] for one in rows}) == 1
    chosen = {n: rule.worst(rows, n / 3, {"": MODEL}) for n in (1, 2)}
    assert chosen == {1: {2}, 2: {2, 1}}


def test_rows_without_a_prediction_do_not_take_the_share_of_others():
    """A structure with too few known cases has none, however sure its samples are."""
    sure = [row(predicted=None, case=f"sure {i}", d_pw=0.97) for i in range(4)]
    doubtful = [row(predicted=0.4, case="known", d_pw=0.5)]
    doubtful += [row(predicted=None, case="unknown", d_pw=0.3)]
    known = [row(predicted=0.9, case=f"good {i}", d_pw=0.9) for i in range(4)]
    rows = [*sure, *known, *doubtful]
    chosen = rule.worst(rows, 0.2, {})
    assert {str(rows[i]["case"]) for i in chosen} == {"known", "unknown"}


def test_released_cases_are_those_without_a_flag():
    cases = [
        row(predicted=None, lower=None, case=f"c{i}", d_pw=i / 20) for i in range(20)
    ]
    cases = [{**one, "cv": 1, "u_labelled": 1} for one in cases]
    cases[19]["unlike"] = "cv"
    known = [
        {"dice": i / 30, "d_pw": i / 30, "cv": 1, "u_labelled": 1, "split": ""}
        for i in range(30)
    ]
    model = quality.fit(known)
    decided = rule.decide(cases, Rule(0.5, release_level=0.2), {"": model})
    released = [one["released"] == "yes" for one in decided]
    assert [one["flag"] for one in decided] == ["no" if r else "yes" for r in released]
    assert 0 < sum(released) < 12
    assert not released[19]
    assert decided[0]["reason"] == "not released at level 0.2"
    both = Rule(0.5, release_level=0.2, review_fraction=0.9)
    decided = rule.decide(cases, both, {"": model})
    for one in decided:  # a case among the worst is not released either
        assert (one["flag"], one["released"]) in (("yes", "no"), ("no", "yes"))
    assert sum(one["released"] == "yes" for one in decided) <= 2 < sum(released)
    few = model._replace(scores=model.scores[:8], dice=model.dice[:8])
    wanted = Rule(0.5, release_level=0.1)
    none = rule.decide(cases, wanted, {"": few})
    assert {one["released"] for one in none} == {"no"}
    assert "none released: 8 calibration cases" in rule.release_words(
        wanted, {"": few}, none
    )
    assert {one["released"] for one in rule.decide(cases, Rule(0.5), {"": model})} == {
        ""
    }


@pytest.mark.parametrize(
    "wanted",
    [
        *(Rule(0.0), Rule(1.1), Rule(review_fraction=2), Rule(level=1.0)),
        Rule(0.9, release_level=1.0),
    ],
)
def test_senseless_rules_are_refused(wanted):
    with pytest.raises(InputError, match="must lie in"):
        rule.check(wanted)


def test_a_release_needs_a_target():
    with pytest.raises(InputError, match="needs --target-dice"):
        rule.check(Rule(release_level=0.1))


def test_worst_come_first():
    rows = [
        {**row(lower=lower, predicted=predicted), "case": case, "flag": flag}
        for case, flag, lower, predicted in (
            ("fine", "no", 0.9, 0.95),
            ("flagged", "yes", 0.99, 0.99),
            ("unbounded", "yes", None, 0.9),
            ("worse", "yes", 0.2, 0.9),
            ("better", "no", 0.95, 0.95),
        )
    ]
    broken = row("failed: truncated", None, None)
    rows.insert(4, {**broken, "case": "broken", "flag": "yes"})
    names = [one["case"] for one in rule.order(rows)]
    assert names == ["broken", "unbounded", "worse", "flagged", "fine", "better"]


def test_released_cases_are_told_by_structure():
    wanted = Rule(target_dice=0.8, release_level=0.2)
    rows = [
        cases_table.new_row(
            REVIEW_COLUMNS, case=case, structure=name, status="ok", released=released
        )
        for case, name, released in (
            *(("a", "liver", "yes"), ("b", "liver", "no")),
            *(("a", "spleen", "no"), ("c", "", "no")),
        )
    ]
    some = [{"dice": 0.9 - i / 100, "d_pw": 0.9 - i / 50} for i in range(20)]
    models = {
        name: quality.fit(some[:n], measures=["d_pw"])
        for name, n in (("liver", 20), ("spleen", 3))
    }
    told = rule.release_words(wanted, models, rows)
    assert told == (
        "liver: 1 of 2 cases released, by 20 calibration cases; spleen: none released: "
        "3 calibration cases; level 0.2 needs 4 or more"
    )
