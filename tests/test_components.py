"""Components of a mask and of its samples, against a computation voxel by voxel."""

import itertools

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist, pdist

from unc_jax import predict
from unc_jax.data import nifti
from unc_jax.review.component_rows import (
    MOST,
    matched_auroc,
    presence_words,
    words_of,
)
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS
from unc_jax.study.components import (
    compare_lesions,
    diameter_mm,
    find_components,
    label,
    outside_largest,
)
from unc_jax.uncertainty.host_samples import reduce_maps

CUBE = np.ones((3, 3, 3))
AFFINE = np.array([[0.8, 0, 0, -20], [0, 1.5, 0, 7], [0, 0, 4.0, 100], [0, 0, 0, 1]])
SPACING = np.array([0.8, 1.5, 4.0])


def box(*sides, shape=(40, 30, 21)):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(*side) for side in sides)] = True
    return mask


BIG, SMALL = box((2, 12), (3, 11), (2, 6)), box((20, 24), (5, 9), (3, 6))
ONLY, CORNER = box((33, 36), (20, 24), (15, 18)), box((24, 25), (9, 10), (6, 7))


def lesions():
    """Ten samples: all have the big one, 6 the small one, 2 one that no mask has."""
    samples = np.zeros((10, *BIG.shape), bool)
    samples[:] = BIG
    samples[:6] |= SMALL
    samples[:3] |= CORNER  # touches the small one at a corner
    samples[8:] |= ONLY
    samples[9] &= ~box((2, 12), (3, 11), (5, 6))
    return samples


def test_lesions_of_a_mask_and_of_samples_alone():
    prediction = reduce_maps(lesions())
    truth = box((22, 30), (8, 12), (5, 9))
    (big, small, only), count = find_components(prediction, AFFINE, truth, most=9)
    assert count == 3
    assert [one.in_mask for one in (big, small, only)] == [True, True, False]
    assert [one.matched for one in (big, small, only)] == [False, True, False]
    assert [one.presence for one in (big, small, only)] == [1.0, 0.6, 0.2]
    voxel = 0.8 * 1.5 * 4 / 1000
    assert big.volume_ml == pytest.approx(BIG.sum() * voxel)
    assert small.volume_ml == pytest.approx(SMALL.sum() * voxel)  # without its corner
    assert only.volume_ml == pytest.approx(ONLY.sum() * voxel)
    assert big.place_mm == pytest.approx((0.8 * 6.5 - 20, 1.5 * 6.5 + 7, 4 * 3.5 + 100))
    assert big.diameter_mm == pytest.approx(np.hypot(8, 12), rel=2e-3)
    pairs = itertools.combinations(range(10), 2)
    a, b = BIG.sum(), BIG.sum() * 3 / 4  # the last sample lacks a quarter of it
    assert big.d_pw == pytest.approx(
        np.mean([2 * b / (a + b) if j == 9 else 1 for _, j in pairs])
    )
    # 48 voxels, in three samples 49; four samples have none.
    n, m = 48, 49
    dice = (3 + 3 + 9 * 2 * n / (n + m) + 6) / 45
    assert small.d_pw == pytest.approx(dice)
    assert only.d_pw == pytest.approx((1 + 28) / 45)

    def entropy(q):
        return -q * np.log(q) - (1 - q) * np.log(1 - q)

    assert small.u == pytest.approx(entropy(0.6), rel=1e-5)
    assert only.u == pytest.approx(entropy(0.2), rel=1e-5)
    assert big.u == pytest.approx(entropy(0.9) / 4, rel=1e-5)


def test_the_most_of_many_and_none_at_all():
    prediction = reduce_maps(lesions())
    found, count = find_components(prediction, AFFINE, most=1)
    assert (len(found), count, found[0].matched) == (1, 3, None)
    nothing = reduce_maps(np.zeros((2, 4, 5, 6), bool))
    assert find_components(nothing, AFFINE, most=9) == ([], 0)


def by_hand(samples, mean):
    """Territories by distances between all voxels; presence and D_pw from them."""
    joined, _ = ndimage.label(samples.any(axis=0), CUBE)
    final, count = ndimage.label(mean >= 0.5, CUBE)
    around = final.copy()
    places = np.argwhere(final > 0)
    for voxel in np.argwhere((joined > 0) & (final == 0)):
        near = places[joined[tuple(places.T)] == joined[tuple(voxel)]]
        if len(near):
            apart = cdist([voxel * SPACING], near * SPACING)[0]
            closest = near[np.flatnonzero(apart <= apart.min() + 1e-9)]
            labels = {final[tuple(one)] for one in closest}
            if len(labels) > 1:
                return None  # a tie between two components
            around[tuple(voxel)] = labels.pop()
    only, more = ndimage.label((joined > 0) & (around == 0), CUBE)
    around[only > 0] = count + only[only > 0]
    found = []
    for one in range(1, count + more + 1):
        own = final == one if one <= count else around == one
        there = [s & (around == one) for s in samples]
        dice = [
            2 * (a & b).sum() / max(a.sum() + b.sum(), 1) if (a | b).any() else 1
            for a, b in itertools.combinations(there, 2)
        ]
        presence = np.mean([(s & own).any() for s in samples])
        found.append((own.sum(), presence, np.mean(dice), one <= count))
    return sorted(found)


def test_noise_against_every_pair_of_voxels():
    rng, compared = np.random.default_rng(2), 0
    for _ in range(80):
        maps = ndimage.gaussian_filter(rng.normal(size=(4, 9, 8, 7)), (0, 1, 1, 1))
        samples = maps > 0.3
        prediction = reduce_maps(samples)
        expected = by_hand(samples, prediction.mean)
        if expected is None:
            continue
        found, count = find_components(prediction, AFFINE, most=999)
        assert count == len(found)
        voxel = 0.8 * 1.5 * 4 / 1000
        table = sorted(
            (round(o.volume_ml / voxel), o.presence, o.d_pw, o.in_mask) for o in found
        )
        np.testing.assert_allclose(table, expected, rtol=1e-9)
        compared += 1
    assert compared > 20  # the others have a voxel halfway between two


def test_labels_are_those_of_the_whole_grid():
    rng = np.random.default_rng(3)
    mask = rng.random((30, 25, 20)) < 0.04
    expected, count = ndimage.label(mask, CUBE)
    places = np.argwhere(mask)
    found = label(places)
    assert found.max() == count > 100
    pairs = set(zip(found.tolist(), expected[tuple(places.T)].tolist(), strict=True))
    assert len(pairs) == count  # one number for one number


def test_diameters_of_slices():
    rng = np.random.default_rng(4)
    for _ in range(20):
        places = np.argwhere(rng.random((9, 8, 3)) < 0.2)
        corners = np.array(list(itertools.product((-0.5, 0.5), repeat=2)))
        longest = 0
        for z in np.unique(places[:, 2]):
            own = places[places[:, 2] == z][:, :2]
            edges = (own[:, None] + corners).reshape(-1, 2) * SPACING[:2]
            longest = max(longest, pdist(edges).max())
        found = diameter_mm(rng.permutation(places), SPACING)
        assert found == pytest.approx(longest, rel=1.1e-3)
        assert found <= longest + 1e-9


def test_lesions_against_a_reference():
    truth = BIG | SMALL | ONLY
    mask = box((2, 12), (3, 11), (3, 6)) | box((20, 30), (5, 9), (3, 6))
    mask |= box((0, 3), (25, 28), (18, 20)) | box((5, 6), (28, 29), (9, 10))
    found = compare_lesions(mask, truth)
    assert found[:3] == (3, 2, 2)
    first = 2 * 240 / (240 + 320)
    second = 2 * 48 / (48 + 120)
    assert found.dice == pytest.approx((first + second) / 3)
    # One blob over two lesions finds both.
    both = compare_lesions(box((0, 40), (0, 30), (2, 6)), truth)
    assert both[:3] == (3, 2, 0)
    assert compare_lesions(mask, mask) == (4, 4, 0, 1.0)
    empty = np.zeros(mask.shape, bool)
    np.testing.assert_equal(tuple(compare_lesions(mask, empty)), (0, 0, 4, np.nan))
    assert compare_lesions(empty, truth) == (3, 0, 0, 0.0)


def test_all_but_the_largest():
    rest, count = outside_largest(BIG | SMALL | ONLY | CORNER)
    np.testing.assert_array_equal(rest, SMALL | ONLY | CORNER)
    assert count == 2  # the corner is part of the small one
    rest, count = outside_largest(BIG)
    assert not rest.any()
    assert count == 0
    assert outside_largest(np.zeros((3, 3, 3), bool))[1] == 0


def test_presence_tells_true_lesions_from_false_ones():
    rng = np.random.default_rng(6)
    matched = np.where(rng.random(180) < 0.6, "yes", "no").tolist()
    shares = (rng.integers(1, 6, 180) / 5).tolist()
    rows = [
        {
            **{"case": f"c{i % 12}", "presence": shares[i], "matched": matched[i]},
            **{"volume_ml": shares[i] ** 3, "in_mask": "yes" if i % 5 else "no"},
        }
        for i in range(180)
    ]
    for row in rows[::2]:
        row["presence"] = 1.0 if row["matched"] == "yes" else row["presence"]
    for column in ("presence", "volume_ml"):
        true = [row[column] for row in rows if row["matched"] == "yes"]
        false = [row[column] for row in rows if row["matched"] == "no"]
        wins = [(t > f) + (t == f) / 2 for t in true for f in false]
        found = matched_auroc(rows, column)
        assert found["value"] == pytest.approx(np.mean(wins))
        assert (found["matched"], found["false"]) == (len(true), len(false))
        low, high = found["ci95"]
        assert 0.2 < low < found["value"] < high < 1
    kept = [row for row in rows if row["in_mask"] == "yes"]
    small = np.median([row["volume_ml"] for row in rows])
    small = [row for row in rows if row["volume_ml"] < small]
    words = presence_words(rows)
    for some, column in (
        (rows, "presence"),
        (rows, "volume_ml"),
        (small, "presence"),
        (kept, "presence"),
    ):
        found = matched_auroc(some, column)
        low, high = found["ci95"]
        assert f" {found['value']:.2f} (95 % {low:.2f} to {high:.2f})" in words
    assert f"those of the masks, {found['matched']} in the reference" in words
    assert presence_words(kept).count("AUROC") == 1  # all are of the masks
    nowhere = presence_words([{**row, "volume_ml": None} for row in rows])
    assert "AUROC" in nowhere
    assert "volume" not in nowhere
    large = presence_words(
        [{**row, "volume_ml": 1300.0 + i} for i, row in enumerate(rows)]
    )
    assert "presence below 1390 ml" in large
    tiny = presence_words(
        [{**row, "volume_ml": 1e-7 * i} for i, row in enumerate(rows)]
    )
    assert "presence below under 0.001 ml" in tiny
    assert presence_words([row for row in rows if row["matched"] == "yes"]) == ""
    assert presence_words([{**row, "matched": ""} for row in rows]) == ""
    assert presence_words([{**row, "case": row["case"][:1]} for row in rows]) == ""
    assert presence_words([]) == ""
    assert matched_auroc([], "presence")["value"] is None


def test_predict_leaves_the_largest_alone(tiny_run, tiny_task, tmp_path):
    rows, masks = {}, {}
    for name, flags in (("all", []), ("one", ["--largest-component"])):
        argv = ["--run", tiny_run, "--input", tiny_task / "imagesTr"]
        argv += ["--output", tmp_path / name, *flags]
        with pytest.raises(SystemExit) as done:
            predict.main(list(map(str, argv)))
        assert done.value.code == 0
        table = cases_table.read_rows(tmp_path / name / "cases.csv", REVIEW_COLUMNS)
        rows[name] = {str(row["case"]): row for row in table}
        masks[name] = {
            case: nifti.read(tmp_path / name / case / "mask.nii.gz")
            for case in rows[name]
        }
    removed = 0
    for case, (mask, geometry) in masks["all"].items():
        rest, count = outside_largest(mask)
        np.testing.assert_array_equal(masks["one"][case].array != 0, mask & ~rest)
        row = rows["one"][case]
        assert ("not the largest" in row["warnings"]) == (count > 0)
        assert row["d_pw"] == rows["all"][case]["d_pw"]
        assert row["volume_ml"] == pytest.approx(
            np.count_nonzero(mask & ~rest) * geometry.voxel_ml
        )
        removed += count
    assert removed > 0


@pytest.mark.parametrize(("count", "said"), [(3, "of 3"), (MOST, f"of {MOST} or more")])
def test_a_list_of_components_that_was_cut_is_told(count, said):
    one = {"structure": "liver", "in_mask": "yes", "presence": 0.5, "matched": ""}
    rows = [{**one, "component": k + 1, "volume_ml": None} for k in range(count)]
    first = words_of(rows, 10)[0]
    assert first.startswith(f"component 1 {said}: ")
    # Of those in samples only, the list was cut, not of the mask's.
    for row in rows[2:]:
        row["in_mask"] = "no"
    assert words_of(rows, 10)[0].startswith("component 1 of 2: ")
