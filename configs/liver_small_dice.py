r"""Liver, small patches, soft Dice.

Reproduces: Table 1, row "dice, small".

    python -m unc_jax.main --config configs/liver_small_dice.py \
        --config.data.root=/path/to/Task03_Liver

Paper:    Dice test (training) 0.86 (0.86); rho CV -0.28, D_pw 0.59, U_labelled -0.50.
Measured: on synthetic CT, results/synthetic_full; on Task03_Liver, which was not
    available: not run.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.train.patch_shape = (64, 64, 16)
    config.train.batch = 32  # as many voxels an update as with large patches
    config.loss.name = "dice"
    return config
