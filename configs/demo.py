"""The whole pipeline on the synthetic cohort, in minutes on two CPU cores.

    bash launch/demo.sh

Measured: results/demo (64 cases, split 24/10/30).
Ten validation cases support bounds of predicted Dice at level 0.9.

A small network (8 features, 3 levels) on small volumes. Everything else is the code and
the settings of configs/liver_large_wcc.py.
"""

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    config = base.get_config()
    config.data.root = "phantom"
    config.data.phantom_cases = 64
    config.data.split_shares = (24, 10, 30)
    config.data.phantom_size = (96, 96, 64)
    config.data.shape = (64, 64, 48)
    config.model.features = 8
    config.model.depth = 3
    config.train.steps = 500
    config.train.batch = 2
    config.train.patch_shape = (64, 64, 16)
    config.train.learning_rate = 6e-3
    config.train.schedule = "cosine"
    config.train.steps_per_call = 20
    config.train.validate_every_steps = 100
    config.train.checkpoint_every_steps = 100
    config.evaluate.window_batch = 8
    return config
