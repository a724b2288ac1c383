r"""Liver, large patches, soft Dice.

Reproduces: Table 1, row "dice, large".

    python -m unc_jax.main --config configs/liver_large_dice.py \
        --config.data.root=/path/to/Task03_Liver

Paper:    Dice test (training) 0.89 (0.90); rho CV -0.50, D_pw 0.81, U_labelled -0.64.
Measured: on synthetic CT, results/synthetic_full; on Task03_Liver, which was not
    available: not run.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.train.patch_shape = (128, 128, 16)
    config.loss.name = "dice"
    return config
