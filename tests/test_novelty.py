import json

import numpy as np
import pytest

from unc_jax.data import cohort
from unc_jax.errors import InputError
from unc_jax.review import novelty, quality
from unc_jax.study import case_columns, cases_table, run_folder


def cases(seed, n, shift=0.0):
    """Features in a plane of five dimensions, shifted along it."""
    random = np.random.default_rng(seed)
    plane = np.random.default_rng(9).normal(size=(2, 5))
    return (random.normal(size=(n, 2)) + shift) @ plane + 7


def test_cases_of_the_same_kind_are_seldom_novel():
    found = novelty.fit(cases(0, 30), cases(1, 20))
    assert len(found.axes) == 2  # the plane
    assert np.mean(novelty.distances(found, cases(2, 500)) > found.limit) < 0.1


def test_other_kinds_are_novel():
    found = novelty.fit(cases(0, 30), cases(1, 20))
    assert all(novelty.is_novel(found, one) for one in cases(2, 50, shift=8.0))


def test_a_training_case_has_no_distance():
    training = cases(0, 10)
    found = novelty.fit(training, cases(1, 5))
    np.testing.assert_allclose(novelty.distances(found, training), 0, atol=1e-9)


@pytest.mark.parametrize("content", [{}, {"train": [[1], [2]], "validation": ["x"]}])
def test_broken_features_are_named(tiny_run, content):
    run = run_folder.open_run(tiny_run)._replace(features=content)
    with pytest.raises(InputError, match=r"features.json"):
        novelty.of_run(run)


def test_an_older_run_judges_nothing(tiny_run):
    run = run_folder.open_run(tiny_run)
    assert novelty.of_run(run._replace(features=None)) is None


def test_evaluation_keeps_the_features_of_its_cases(tiny_run):
    stored = json.loads((tiny_run / "features.json").read_text())
    config = json.loads((tiny_run / "config.json").read_text())
    folder = next((tiny_run.parents[1] / "prepared").glob("liver-*"))
    split = cohort.open_cohort(folder).split
    for name in ("train", "validation"):
        assert len(stored[name]) == len(getattr(split, name))
        channels = 2 * config["model.features"] * 2 ** (config["model.depth"] - 1)
        assert {len(one) for one in stored[name]} == {channels}


@pytest.mark.parametrize(("unlike", "bound"), [("features, cv", False), ("cv", True)])
def test_a_novel_scan_has_no_bound(unlike, bound):
    rows = [
        {"dice": 0.9, "cv": 1.0, "d_pw": 0.9, "u_labelled": 0.1, "split": split}
        for split in ["train"] * 5 + ["validation"] * 5
    ]
    row = cases_table.new_row(
        case_columns.REVIEW_COLUMNS,
        **{"cv": 1.0, "d_pw": 0.9, "u_labelled": 0.1, "status": "ok"},
        unlike=unlike,
    )
    found = quality.with_estimate(row, quality.fit(rows), level=0.5)
    assert found["predicted_dice"] is not None
    assert (found["dice_lower"] is not None) == bound
