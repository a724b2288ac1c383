import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from unc_jax.uncertainty import measures
from unc_jax.uncertainty.host_samples import reduce_maps
from unc_jax.uncertainty.packed_masks import pack_masks, pairwise_dice_packed
from unc_jax.uncertainty.prediction import SPARSE, reduce_samples

SHAPE = (4, 3, 2, 5)
FEW = settings(deadline=None, max_examples=30)
# Exact 0 and 1 are drawn as often as anything between.
probabilities = arrays(
    np.float32,
    SHAPE,
    elements=st.one_of(
        st.sampled_from([0.0, 0.5, 1.0]), st.floats(0, 1, width=32, allow_nan=False)
    ),
)


def reference_term(p):
    return np.where(p > 0, -p * np.log(np.where(p > 0, p, 1)), 0)


def reference_entropy(p):
    return reference_term(p) + reference_term(1 - p)


def reference_labelled(values, samples):
    # The mask in float32, as the package takes it; the mean over it in float64.
    mask = np.asarray(measures.mean_probability(samples)) >= 0.5
    return values[mask].mean() if mask.any() else np.nan


def reference(name, samples):
    p = samples.astype(np.float64)
    masks = samples >= 0.5
    volumes = masks.sum(axis=(1, 2, 3))
    uncertainty = reference_term(p).mean(axis=0)
    predictive = reference_entropy(p.mean(axis=0))
    expected = reference_entropy(p).mean(axis=0)
    if name == "mean_pairwise_dice":
        return np.mean(
            [
                2 * (a & b).sum() / (a.sum() + b.sum()) if a.any() or b.any() else 1.0
                for i, a in enumerate(masks)
                for b in masks[i + 1 :]
            ]
        )
    if name == "coefficient_of_variation_roy":
        return volumes.std() / volumes.mean() if volumes.any() else np.nan
    maps = {
        "voxelwise_uncertainty": uncertainty,
        "expected_entropy": expected,
        "predictive_entropy": predictive,
        "mutual_information": predictive - expected,
        "coefficient_of_variation": volumes.var() / (volumes.mean() + 1),
    }
    if name in maps:
        return maps[name]
    assert name == "mean_labelled_uncertainty"
    return reference_labelled(uncertainty, samples)


NAMES = (
    "voxelwise_uncertainty",
    "coefficient_of_variation",
    "coefficient_of_variation_roy",
    "mean_pairwise_dice",
    "mean_labelled_uncertainty",
    "expected_entropy",
    "predictive_entropy",
    "mutual_information",
)
JITTED = {name: jax.jit(getattr(measures, name)) for name in NAMES}


def masks_to_samples(*rows):
    """Samples (n, x, 1, 1) from rows of 0 and 1."""
    return np.array(rows, np.float32)[:, :, None, None]


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(samples=probabilities)
def test_jit_plain_and_numpy_agree(name, samples):
    expected = reference(name, samples)
    # Rounding of the mean decides an entropy difference near 0, hence the tolerance.
    np.testing.assert_allclose(JITTED[name](samples), expected, rtol=2e-5, atol=5e-7)
    with jax.disable_jit():
        plain = getattr(measures, name)(samples)
    np.testing.assert_allclose(plain, expected, rtol=2e-5, atol=5e-7)


@FEW
@given(samples=probabilities, order=st.permutations(range(SHAPE[0])))
def test_sample_order_does_not_matter(samples, order):
    for name in NAMES:
        np.testing.assert_allclose(
            JITTED[name](samples), JITTED[name](samples[list(order)]), atol=5e-7
        )


@FEW
@given(samples=probabilities)
def test_bounds(samples):
    uncertainty = np.asarray(JITTED["voxelwise_uncertainty"](samples))
    assert np.all((uncertainty >= 0) & (uncertainty <= np.exp(-1) + 1e-6))
    for name in ("expected_entropy", "predictive_entropy", "mutual_information"):
        values = np.asarray(JITTED[name](samples))
        assert np.all((values >= 0) & (values <= np.log(2) + 1e-6)), name
    assert 0 <= JITTED["mean_pairwise_dice"](samples) <= 1
    assert 0 <= JITTED["coefficient_of_variation"](samples) < np.inf
    labelled = JITTED["mean_labelled_uncertainty"](samples)
    assert np.isnan(labelled) or 0 <= labelled <= np.exp(-1) + 1e-6


@pytest.mark.parametrize("name", NAMES)
def test_vmap_over_cases(name):
    cases = np.random.default_rng(0).random((3, *SHAPE), np.float32)
    function = getattr(measures, name)
    each = np.stack([function(case) for case in cases])
    np.testing.assert_allclose(jax.vmap(function)(cases), each, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("rows", "dice"),
    [
        ([[1, 1, 0, 0], [1, 1, 0, 0]], 1.0),
        ([[1, 1, 0, 0], [0, 0, 1, 1]], 0.0),
        ([[1, 1, 0, 0], [0, 1, 1, 0]], 0.5),
        ([[0, 0, 0, 0], [0, 0, 0, 0]], 1.0),
        ([[0, 0, 0, 0], [0, 0, 0, 1]], 0.0),
        # pairs: 2*1/(2+1), 2*0/(2+0), 2*0/(1+0)
        ([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], 2 / 9),
    ],
)
def test_pairwise_dice_by_hand(rows, dice):
    samples = masks_to_samples(*rows)
    assert measures.mean_pairwise_dice(samples) == pytest.approx(dice)
    packed = np.asarray(pack_masks(samples >= 0.5))
    assert pairwise_dice_packed(packed) == pytest.approx(dice)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: measures.mean_pairwise_dice(s),
        lambda s: jax.jit(measures.mean_pairwise_dice)(s),
        lambda s: pairwise_dice_packed(s.astype(np.uint8)),
    ],
)
def test_one_sample_has_no_pair(call):
    with pytest.raises(ValueError, match="at least 2 samples, got 1"):
        call(np.ones((1, 2, 2, 2), np.float32))


@pytest.mark.parametrize(
    ("volumes", "cv", "roy"),
    [
        ([4, 4, 4], 0.0, 0.0),
        ([2, 4], 1 / 4, 1 / 3),  # variance 1, mean 3
        ([0, 0], 0.0, np.nan),
        ([0, 2], 1 / 2, 1.0),
    ],
)
def test_coefficient_of_variation_by_hand(volumes, cv, roy):
    samples = np.zeros((len(volumes), 5, 1, 1), np.float32)
    for sample, volume in zip(samples, volumes, strict=True):
        sample[:volume] = 0.5
    assert measures.sample_volumes(samples).tolist() == volumes
    np.testing.assert_allclose(measures.coefficient_of_variation(samples), cv)
    np.testing.assert_allclose(measures.cv_of_volumes(np.array(volumes)), cv)
    roy_found = measures.coefficient_of_variation_roy(samples)
    np.testing.assert_allclose(roy_found, roy, rtol=1e-6)


def test_one_voxel_of_sixteen_million_is_seen():
    volumes = np.array([16_777_217, 16_777_216, 16_777_217, 16_777_216])
    expected = volumes.var() / (volumes.mean() + 1)
    np.testing.assert_allclose(measures.cv_of_volumes(volumes), expected, rtol=1e-6)
    full = jnp.ones((1, 256, 256, 257), bool)
    assert measures.sample_volumes(full).tolist() == [256 * 256 * 257]


@pytest.mark.parametrize(
    ("p", "uncertainty", "entropy"),
    [
        (0.0, 0.0, 0.0),
        (1.0, 0.0, 0.0),
        (0.5, 0.34657359, 0.69314718),
        (0.9, 0.09482446, 0.32508297),
        (float(np.exp(-1)), 0.36787944, 0.65781742),
        (1e-8, 1.8420681e-7, 1.9420681e-7),
    ],
)
def test_entropies_by_hand(p, uncertainty, entropy):
    samples = np.full((10, 1, 1, 1), p, np.float32)
    found = measures.voxelwise_uncertainty(samples)
    np.testing.assert_allclose(found, [[[uncertainty]]], rtol=1e-5)
    found = measures.expected_entropy(samples)
    np.testing.assert_allclose(found, [[[entropy]]], rtol=1e-5)
    assert measures.mutual_information(samples).item() == pytest.approx(0, abs=1e-6)


def test_certain_but_contradicting_samples():
    samples = masks_to_samples([1, 0], [0, 0])
    assert measures.voxelwise_uncertainty(samples).max() == 0
    information = measures.mutual_information(samples)[:, 0, 0]
    np.testing.assert_allclose(information, [np.log(2), 0], rtol=1e-6)


def test_labelled_mean_takes_the_voxels_of_the_mean_mask():
    # Mean 0.5 belongs to the mask, mean 0.4 does not.
    samples = masks_to_samples([1.0, 0.5, 0.4], [0.0, 0.5, 0.4])
    found = measures.mean_labelled_uncertainty(samples)
    np.testing.assert_allclose(found, (0 + 0.34657359) / 2, rtol=1e-6)
    empty = np.full((2, 3, 1, 1), 0.49, np.float32)
    assert np.isnan(measures.mean_labelled_uncertainty(empty))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, np.float64, bool])
def test_any_type_of_sample(dtype):
    samples = masks_to_samples([1, 1, 0, 0], [0, 1, 1, 0])
    for name in NAMES:
        found = JITTED[name](samples.astype(dtype))
        np.testing.assert_array_equal(found, JITTED[name](samples))


@pytest.mark.parametrize("depth", [1, 7, 8, 9, 16])
def test_packing_is_that_of_numpy(depth):
    masks = np.random.default_rng(depth).random((3, 2, 4, depth)) < 0.5
    packed = jax.jit(pack_masks)(masks)
    np.testing.assert_array_equal(packed, np.packbits(masks, axis=-1))


@FEW
@given(masks=arrays(bool, (3, 3, 2, 11)))
def test_packed_dice_is_dice(masks):
    packed = np.packbits(masks, axis=-1)
    expected = reference("mean_pairwise_dice", masks.astype(np.float32))
    assert pairwise_dice_packed(packed) == pytest.approx(expected, rel=1e-12)


FUNCTIONS = {
    "cv": "coefficient_of_variation",
    "d_pw": "mean_pairwise_dice",
    "u_labelled": "mean_labelled_uncertainty",
}


@FEW
@given(samples=probabilities)
@pytest.mark.parametrize("reduce", [reduce_maps, lambda s: reduce_samples([s])])
def test_subsets_are_measured_like_samples_of_their_own(reduce, samples):
    samples = samples.astype(np.float16).astype(np.float32)  # as they are kept
    found = reduce(samples)
    subsets = np.array([[0, 1, 2], [3, 1, 0]])
    for name in measures.PAPER_MEASURES:
        kept = samples
        if name == "u_labelled":
            kept = samples[:, ::SPARSE, ::SPARSE, ::SPARSE]
        expected = [reference(FUNCTIONS[name], kept[one]) for one in subsets]
        if name == "u_labelled" and found.hard:
            expected = [np.nan] * 2
        values = measures.MEASURES[name].of_subsets(found, subsets)
        np.testing.assert_allclose(values, expected, rtol=2e-5, atol=5e-7)


def test_stated_error_is_the_spread_of_repeated_draws():
    """Balls that grow and shrink from sample to sample, drawn 60 times."""
    random = np.random.default_rng(0)
    distance = np.linalg.norm(np.mgrid[-12:12, -12:12, -12:12], axis=0)
    found = {name: [] for name in measures.PAPER_MEASURES}
    for _ in range(60):
        radii = random.normal(7, 1.5, (10, 1, 1, 1))
        samples = 1 / (1 + np.exp(distance - radii))
        one = reduce_maps(samples.astype(np.float32))
        for name, values in found.items():
            measure = measures.MEASURES[name]
            values.append((measure.of(one), measures.standard_error(one, name)))
    for name, values in found.items():
        drawn, stated = np.array(values).T
        assert 0.7 < np.sqrt(np.mean(stated**2)) / drawn.std() < 1.4, name


def test_three_samples_state_no_error():
    one = reduce_maps(np.random.default_rng(0).random((3, 4, 4, 4), np.float32))
    assert np.isnan(measures.standard_error(one, "cv"))


def test_means_inside_are_the_same_from_the_device_and_from_the_host():
    samples = np.random.default_rng(3).random((6, 5, 4, 9), np.float32) ** 0.5
    on_device = reduce_samples([jnp.asarray(samples[:4]), jnp.asarray(samples[4:])])
    on_host = reduce_maps(iter(samples))
    assert on_device.labelled == pytest.approx(on_host.labelled, rel=1e-5)
    inside = samples.mean(0) >= 0.5
    p = samples.astype(np.float64)
    expected = reference_entropy(p).mean(0)
    predictive = reference_entropy(p.mean(0))
    assert on_device.labelled == pytest.approx(
        {
            "uncertainty": reference_term(p).mean(0)[inside].mean(),
            "expected_entropy": expected[inside].mean(),
            "predictive_entropy": predictive[inside].mean(),
            "mutual_information": (predictive - expected)[inside].mean(),
        },
        rel=1e-5,
    )
    nothing = reduce_samples([jnp.zeros((3, 2, 2, 2))]).labelled
    assert all(np.isnan(value) for value in nothing.values())


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("flip", [1, -1])
def test_samples_are_reduced_in_the_order_of_their_file(axes, flip):
    samples = np.random.default_rng(4).random((4, 5, 9, 7), np.float32) ** 0.5
    stored = [np.ascontiguousarray(one.transpose(axes)[::flip]) for one in samples]
    as_read = [one[::flip].transpose(np.argsort(axes)) for one in stored]
    # One of another order among them.
    found = reduce_maps([*as_read[:3], np.ascontiguousarray(as_read[3])])
    expected = reduce_samples([jnp.asarray(samples)])
    np.testing.assert_array_equal(found.masks, expected.masks)
    np.testing.assert_array_equal(found.volumes, expected.volumes)
    np.testing.assert_array_equal(found.sparse, expected.sparse)
    for name in ("mean", "uncertainty"):
        map_ = getattr(found, name)
        np.testing.assert_allclose(map_, getattr(expected, name), rtol=1e-5, atol=1e-6)
        # Written without a search across memory.
        assert np.argsort(map_.strides)[::-1].tolist() == list(axes), name
    assert found.labelled == pytest.approx(expected.labelled, rel=1e-5)
    assert not found.identical
    both = [as_read[0], np.ascontiguousarray(as_read[0])]
    assert reduce_maps(both).identical
