import jax
import jax.numpy as jnp
import numpy as np
import pytest

from unc_jax.errors import InputError
from unc_jax.uncertainty import ensembles, measures

VOLUME = np.random.default_rng(0).random((4, 5, 6)).astype(np.float32)


def blurred(variables, volume):
    """A stand-in for a network: looks one voxel ahead along x, not back."""
    ahead = jnp.roll(volume, -1, 0)
    return variables["weight"] * ahead + (1 - variables["weight"]) * volume


def test_flips_are_undone():
    prediction = ensembles.build_flips(blurred)({"weight": 1.0}, VOLUME)
    assert len(ensembles.FLIPS) == len(set(ensembles.FLIPS)) == 8
    # Half of the flips mirror x, and look back instead.
    ahead, back = np.roll(VOLUME, -1, 0), np.roll(VOLUME, 1, 0)
    samples = np.stack([back if 0 in axes else ahead for axes in ensembles.FLIPS])
    np.testing.assert_allclose(prediction.mean, (ahead + back) / 2, rtol=1e-6)
    np.testing.assert_array_equal(prediction.volumes, (samples >= 0.5).sum((1, 2, 3)))
    assert measures.measure_all(prediction)["u_labelled"] == pytest.approx(
        float(measures.mean_labelled_uncertainty(samples)), rel=1e-6
    )


def test_what_does_not_care_for_sides_has_no_spread():
    prediction = ensembles.build_flips(blurred)({"weight": 0.0}, VOLUME)
    assert prediction.identical
    np.testing.assert_allclose(prediction.mean, VOLUME, rtol=1e-6)


def test_members_are_the_samples_in_their_order():
    members = [{"weight": weight} for weight in (0.0, 0.5, 1.0)]
    predict = ensembles.build_ensemble(blurred)
    prediction = predict(members, VOLUME)
    samples = np.stack([blurred(one, VOLUME) for one in members])
    np.testing.assert_allclose(prediction.mean, samples.mean(0), rtol=1e-6)
    masks = np.unpackbits(prediction.masks, axis=-1, count=VOLUME.shape[2])
    np.testing.assert_array_equal(masks.astype(bool), samples >= 0.5)
    assert prediction.on_host().uncertainty == pytest.approx(
        np.asarray(measures.voxelwise_uncertainty(samples))
    )
    with jax.disable_jit():
        again = predict(members, VOLUME).mean
        np.testing.assert_allclose(again, prediction.mean, rtol=1e-6)
    with pytest.raises(InputError, match="ensemble of 1"):
        predict(members[:1], VOLUME)
