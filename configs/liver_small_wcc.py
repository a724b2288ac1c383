r"""Liver, small patches, weighted categorical cross-entropy.

Reproduces: Table 1, row "wcc, small".

    python -m unc_jax.main --config configs/liver_small_wcc.py \
        --config.data.root=/path/to/Task03_Liver

Paper:    Dice test (training) 0.89 (0.90); rho CV -0.53, D_pw 0.81, U_labelled -0.73.
Measured: on synthetic CT, results/synthetic_full; on Task03_Liver, which was not
    available: not run.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.train.patch_shape = (64, 64, 16)
    config.train.batch = 32  # as many voxels an update as with large patches
    config.loss.name = "wcc"
    return config
