r"""Liver, large patches, weighted categorical cross-entropy.

Reproduces: Table 1, row "wcc, large".

    python -m unc_jax.main --config configs/liver_large_wcc.py \
        --config.data.root=/path/to/Task03_Liver

Paper:    Dice test (training) 0.94 (0.96); rho CV -0.77, D_pw 0.89, U_labelled -0.69.
Measured: on synthetic CT, results/synthetic_full; on Task03_Liver, which was not
    available: not run.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.train.patch_shape = (128, 128, 16)
    config.loss.name = "wcc"
    return config
