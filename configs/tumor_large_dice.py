r"""Liver tumours, large patches, soft Dice.

Reproduces: Table 2, row "dice".

    python -m unc_jax.main --config configs/tumor_large_dice.py \
        --config.data.root=/path/to/Task03_Liver

Paper:    Dice test (training) 0.53 (0.63); rho CV -0.58, D_pw 0.68, U_labelled -0.76.
Measured: on synthetic CT, results/synthetic_full; on Task03_Liver, which was not
    available: not run.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.data.target = "tumor"
    config.data.shape = (284, 256, 133)
    config.data.window_hu = (-30.0, 200.0)
    config.data.outside_hu = -50.0
    config.train.patch_shape = (128, 128, 16)
    config.loss.name = "dice"
    return config
