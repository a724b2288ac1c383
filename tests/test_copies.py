import numpy as np

from unc_jax.data import copies


def test_a_digest_depends_on_numbers_alone():
    scan = np.random.default_rng(0).integers(-9, 9, (5, 6, 40)).astype(np.int16)
    for same in (
        np.asfortranarray(scan),
        scan.astype(">i2"),
        np.where(scan == 0, -0.0, scan),
        np.ascontiguousarray(scan.T).T,
    ):
        assert copies.digest(same) == copies.digest(scan)
    assert copies.digest(scan.reshape(6, 5, 40)) != copies.digest(scan)
    assert copies.digest(np.zeros((2, 3, 4))) != copies.digest(np.zeros((3, 2, 4)))
