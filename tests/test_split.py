import json
import random

import pytest

from unc_jax.data.split import Split, make_split, natural_order, read_split, write_split
from unc_jax.errors import InputError

LIVER = [f"liver_{number}" for number in range(131)]


def split_of(ids, seed, shares=(63, 13, 55), fold=-1, folds=5):
    """Splits as configs/base.py asks for."""
    return make_split(ids, seed, shares, fold=fold, folds=folds)


def test_the_papers_sizes():
    assert [len(part) for part in split_of(LIVER, 0)] == [63, 13, 55]


# Shares of n x (63, 13, 55) / 131 by hand: 10 -> 4.81, 0.99, 4.20 -> 5, 1, 4;
# 40 -> 19.24, 3.97, 16.79 -> 19, 4, 17; 3 -> 1.44, 0.30, 1.26 -> 2, 0, 1 -> 1, 1, 1;
# 4 -> 1.92, 0.40, 1.68 -> 2, 0, 2 -> 1, 1, 2; 200 -> 96.18, 19.85, 83.97.
@pytest.mark.parametrize(
    ("count", "sizes"),
    [
        (3, [1, 1, 1]),
        (4, [1, 1, 2]),
        (10, [5, 1, 4]),
        (40, [19, 4, 17]),
        (200, [96, 20, 84]),
    ],
)
def test_other_sizes_are_proportional(count, sizes):
    split = split_of([f"c{number}" for number in range(count)], 0)
    assert [len(part) for part in split] == sizes


def test_other_shares():
    found = split_of([f"c{number}" for number in range(52)], 0, (24, 10, 18))
    assert [len(part) for part in found] == [24, 10, 18]


@pytest.mark.parametrize("count", range(3, 140))
def test_every_case_is_in_exactly_one_part(count):
    ids = LIVER + [f"more_{number}" for number in range(9)]
    split = split_of(ids[:count], 3)
    assert sorted(sum(split, ())) == sorted(ids[:count])
    assert min(len(part) for part in split) >= 1


@pytest.mark.parametrize(
    ("count", "folds"), [(20, 5), (3, 3), (4, 2), (7, 5), (23, 5), (131, 10)]
)
def test_each_case_is_a_test_case_of_exactly_one_fold(count, folds):
    ids = [f"mr_{number}" for number in range(count)]
    found = [split_of(ids, 1, fold=k, folds=folds) for k in range(folds)]
    assert sorted(case for one in found for case in one.test) == sorted(ids)
    for one in found:
        assert sorted(sum(one, ())) == sorted(ids)  # so validation is never test
        assert min(map(len, one)) >= 1
        assert len(one.test) - count // folds in (0, 1)
    shuffled = random.Random(1).sample(ids, count)
    assert split_of(shuffled, 1, fold=1, folds=folds) == found[1]


def test_folds_are_the_same_on_every_machine():
    ids = [f"mr_{number:02}" for number in range(20)]
    first = split_of(ids, 0, fold=0)
    assert [len(part) for part in first] == [13, 3, 4]
    assert first.test == ("mr_01", "mr_06", "mr_09", "mr_19")
    assert split_of(ids, 1, fold=0) != first
    shares = (1, 1, 9)  # the last is that of the folds
    assert [len(part) for part in split_of(ids, 0, shares, fold=4)] == [8, 8, 4]


@pytest.mark.parametrize(("count", "folds"), [(4, 5), (3, 2)])
def test_too_few_cases_for_the_folds_are_refused(count, folds):
    ids = [f"mr_{number}" for number in range(count)]
    words = f"{count} cases cannot be divided into {folds} folds"
    for fold in range(folds):
        with pytest.raises(InputError, match=words):
            split_of(ids, 0, fold=fold, folds=folds)


def test_file_order_does_not_matter_but_the_seed_does():
    shuffled = random.Random(1).sample(LIVER, len(LIVER))
    assert split_of(shuffled, 0) == split_of(LIVER, 0)
    assert split_of(LIVER, 1) != split_of(LIVER, 0)


def test_split_is_the_same_on_every_machine():
    # Published results lean on this draw: it must never change.
    split = split_of(LIVER, 0)
    assert split.validation[:4] == ("liver_26", "liver_32", "liver_35", "liver_44")


def test_split_is_drawn_not_cut_in_order():
    train = [int(case.split("_")[1]) for case in split_of(LIVER, 0).train]
    assert min(train) < 10
    assert max(train) > 120
    assert train == sorted(train)


def test_natural_order():
    names = ["liver_10", "liver_2", "HCC_1", "liver_02", "7", "liver_2b"]
    assert natural_order(names) == [
        "7",
        "HCC_1",
        "liver_02",
        "liver_2",
        "liver_2b",
        "liver_10",
    ]


@pytest.mark.parametrize("ids", [[], ["a"], ["a", "b"]])
def test_fewer_than_three_cases_are_refused(ids):
    with pytest.raises(InputError, match="at least 3"):
        split_of(ids, 0)


def test_repeated_case_is_refused():
    with pytest.raises(InputError, match="case b occurs twice"):
        split_of(["a", "b", "c", "b"], 0)


def test_written_split_is_read_back(tmp_path):
    split = split_of(LIVER, 5)
    write_split(tmp_path / "split.json", split)
    assert read_split(tmp_path / "split.json", LIVER) == split


def test_split_file_may_leave_cases_out(tmp_path):
    write_split(tmp_path / "split.json", Split(("c",), ("a",), ("b",)))
    assert read_split(tmp_path / "split.json", "abcd").train == ("c",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "must hold exactly the lists train, validation, test"),
        ({"train": ["a"], "val": ["b"], "test": ["c"]}, "must hold exactly"),
        ({"train": "abc", "validation": ["b"], "test": ["c"]}, "train is not a list"),
        ({"train": ["a"], "validation": [1], "test": ["c"]}, "validation is not"),
        ({"train": ["a"], "validation": [], "test": ["c"]}, "validation is empty"),
        (
            {"train": ["a"], "validation": ["b"], "test": ["a"]},
            "more than once: a",
        ),
        (
            {"train": ["a", "a"], "validation": ["b"], "test": ["c"]},
            "more than once: a",
        ),
        (
            {"train": ["a", "x\n"], "validation": ["b"], "test": ["c"]},
            r"not in the data set: x\\n",
        ),
    ],
)
def test_unfit_split_file_is_one_line_naming_it(tmp_path, content, message):
    path = tmp_path / "split.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        read_split(path, ["a", "b", "c"])
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_split_file(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        read_split(tmp_path / "none.json", LIVER)
