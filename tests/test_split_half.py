"""Reliability by halves: the formulas, and that they foretell draws made anew."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from unc_jax.study import case_columns, cases_table, split_half
from unc_jax.study.appraisal import resampled, summarise
from unc_jax.study.statistics import Estimate
from unc_jax.uncertainty import measures
from unc_jax.uncertainty.halves import HALF_COLUMNS, HalfSums, measure_halves
from unc_jax.uncertainty.measures import PAPER_MEASURES
from unc_jax.uncertainty.prediction import reduce_samples

FORMULAS = {
    "cv": measures.coefficient_of_variation,
    "d_pw": measures.mean_pairwise_dice,
    "u_labelled": measures.mean_labelled_uncertainty,
}
# Of empty masks: they agree, and have no voxel inside.
NOTHING = {f"d_pw_half{n}": 1.0 for n in (1, 2)}
NOTHING |= {f"u_labelled_half{n}": np.nan for n in (1, 2)}


def test_formulas_by_hand():
    # 2 * 0.5 / 1.5; a third of the samples of 0.75 is 0.5.
    assert split_half.stepped_up(0.5, 2) == pytest.approx(2 / 3)
    assert split_half.stepped_up(0.5, 3) == pytest.approx(0.75)
    assert split_half.stepped_up([-0.2, 1.0, 0.38], 1) == pytest.approx([0, 1, 0.38])
    # 10 * 0.8 * 0.62 / (0.38 * 0.2) = 65.26
    assert split_half.samples_for(0.8, 0.38, 10) == 66
    assert split_half.samples_for(0.8, 0.5, 10) == 40  # exactly
    assert split_half.samples_for(0.5, 0.8, 10) == 3  # 2.5
    assert split_half.samples_for(0.8, 1.0, 10) == 2  # one has no measure
    assert split_half.samples_for(0.8, 0.0, 10) is None
    assert split_half.samples_for(0.8, None, 10) is None


def row_of(case, **values):
    return cases_table.new_row(
        case_columns.EVALUATION_COLUMNS,
        **{"case": case, "split": "test", "status": "ok", **values},
    )


def rows_of(first, second, samples=10, **values):
    return [
        row_of(f"c{i}", n_samples=samples, d_pw_half1=a, d_pw_half2=b, dice=i / 20)
        for i, (a, b) in enumerate(zip(first, second, strict=True))
    ]


@pytest.mark.parametrize(("samples", "factor"), [(10, 2), (11, 11 / 5)])
def test_reliability_of_rows_is_that_of_their_halves(samples, factor):
    rng = np.random.default_rng(0)
    first = rng.normal(size=20)
    second = first + rng.normal(size=20)
    second[4] = np.nan
    r = stats.spearmanr(np.delete(first, 4), np.delete(second, 4)).statistic
    summary = summarise(rows_of(first, second, samples), resamples=200)
    found = summary["test"]["measures"]["d_pw"]["reliability"]
    assert found["value"] == pytest.approx(factor * r / (1 + (factor - 1) * r))
    assert found["ci95"][0] < found["value"] < found["ci95"][1]
    assert found["samples"] == samples
    assert found["ceiling"] == pytest.approx(found["value"] ** 0.5)
    assert summary["test"]["measures"]["cv"]["reliability"] is None
    assert summary["test"]["measures"]["cv_roy"]["reliability"] is None


def test_reliability_in_words():
    draws = np.linspace(0.1, 0.6, 101)
    found = split_half.describe(Estimate(0.38, draws), 10)
    unknown = {name: {"reliability": None} for name in PAPER_MEASURES}
    (words,) = split_half.sentences({**unknown, "d_pw": {"reliability": found}})
    assert words == (
        "At N = 10 samples the reliability of D_pw is 0.38 (95 % 0.11 to 0.59): its "
        "correlation with Dice is not expected to exceed about 0.62. For a "
        "reliability of 0.8 take N = 66."
    )
    enough = {"reliability": split_half.describe(Estimate(0.9, draws), 10)}
    luck = {"reliability": split_half.describe(Estimate(0.0, draws), 10)}
    first, second = split_half.sentences({**unknown, "cv": luck, "d_pw": enough})
    assert "of CV is 0.00" in first
    assert "is random" in first
    assert second.endswith("is not expected to exceed about 0.95.")
    (of_cv,) = split_half.sentences({**unknown, "cv": {"reliability": found}})
    assert of_cv.endswith("exceed about 0.62. More samples hardly raise it.")
    (nothing,) = split_half.sentences(unknown)
    assert "was not measured" in nothing


def test_older_rows_have_no_reliability():
    rows = [row_of(f"c{i}", n_samples=10, d_pw=i / 9, dice=i / 9) for i in range(9)]
    found = split_half.estimate(rows, "d_pw", resampled(rows, 50))
    assert split_half.describe(found, 10) is None
    assert split_half.cell(None) == "not measured"
    found = summarise(rows, resamples=50)["test"]["measures"]
    assert split_half.cell_of_paper_measures(found) == "not measured"


def drawn_maps(rng, spread, n):
    """Soft balls of random place and size, (n, x, y, z): more random, less certain."""
    places = np.stack(np.indices((9, 9, 8)), axis=-1) - 4.0
    radius = 3.0 + spread * rng.normal(size=(n, 1, 1, 1))
    centre = spread * rng.normal(size=(n, 1, 1, 1, 3))
    distance = np.linalg.norm(places - centre, axis=-1)
    return (1 / (1 + np.exp(2 * (distance - radius)))).astype(np.float32)


def reduced(samples, chunk):
    """The prediction of samples that come `chunk` at a time."""
    halves = HalfSums(len(samples))
    batches = [samples[i : i + chunk] for i in range(0, len(samples), chunk)]
    prediction = reduce_samples(halves.watch(map(jnp.asarray, batches)))
    return prediction._replace(halves=halves.means())


@pytest.mark.parametrize("chunk", [1, 2, 5, 7])
def test_halves_are_measured_like_samples_of_their_own(chunk):
    samples = drawn_maps(np.random.default_rng(3), 0.5, 7)  # the last in neither
    found = measure_halves(reduced(samples, chunk))
    assert tuple(sorted(found)) == tuple(sorted(HALF_COLUMNS))
    for half, part in (("half1", samples[:3]), ("half2", samples[3:6])):
        for name, formula in FORMULAS.items():
            assert found[f"{name}_{half}"] == pytest.approx(float(formula(part))), name


def test_three_samples_have_no_halves():
    samples = drawn_maps(np.random.default_rng(3), 0.5, 3)
    assert measure_halves(reduced(samples, 3)) == {}
    assert measure_halves(reduced(np.zeros((4, 2, 2, 2), np.float32), 4)) == (
        pytest.approx(dict.fromkeys(HALF_COLUMNS, 0.0) | NOTHING, nan_ok=True)
    )


def drawn_samples(rng, spreads, softness, n):
    """Borders that move at random in each sample, (cases, n, 4, 4, 4).

    The cases differ by how far they move, and by how soft they are: what CV and D_pw,
    and what U_labelled, have to find behind the luck of n samples.
    """
    places = np.linspace(-3, 3, 64, dtype=np.float32)
    moved = spreads[:, None, None] * rng.normal(size=(len(spreads), n, 1))
    samples = 1 / (1 + np.exp(-softness[:, None, None] * (places + moved)))
    return samples.astype(np.float32).reshape(len(spreads), n, 4, 4, 4)


def test_halves_foretell_two_draws_of_as_many_samples_and_of_five_times_more():
    rng = np.random.default_rng(0)
    cases = rng.uniform(0.5, 1.3, 400), rng.uniform(1.0, 1.6, 400)
    few = [drawn_samples(rng, *cases, 10) for _ in range(2)]
    many = [drawn_samples(rng, *cases, 50) for _ in range(2)]
    for name, formula in FORMULAS.items():
        of_cases = jax.jit(jax.vmap(formula))
        first, second = (of_cases(few[0][:, h : h + 5]) for h in (0, 5))
        rows = [
            row_of(f"c{i}", n_samples=10, **{f"{name}_half1": a, f"{name}_half2": b})
            for i, (a, b) in enumerate(
                zip(first.tolist(), second.tolist(), strict=True)
            )
        ]
        expected = split_half.estimate(rows, name, np.zeros((1, 400), int)).value
        found = stats.spearmanr(*map(of_cases, few)).statistic
        assert found == pytest.approx(expected, abs=0.1), name
        found_of_many = stats.spearmanr(*map(of_cases, many)).statistic
        stepped = float(split_half.stepped_up(expected, 5))
        assert found_of_many == pytest.approx(stepped, abs=0.06), name
        # Samples enough for that reliability are those fifty.
        needed = split_half.samples_for(stepped, expected, 10)
        assert needed == 50
        assert found_of_many > found + 0.15
