r"""Real livers that two CPU cores can train on: 20 abdominal MR scans (CHAOS, T2-SPIR).

The argument is TARGET_LOSS: target liver, spleen or kidneys (both together), loss wcc
(weighted categorical cross-entropy) or dice. The data set is a Decathlon folder with
the labels 1 liver, 2 right kidney, 3 left kidney, 4 spleen. Twenty cases are too few
for one split: five folds make each a test case once, and compare joins them.

    for k in 0 1 2 3 4; do python -m unc_jax.main \
        --config configs/liver_mr.py:liver_wcc --config.data.root=/path/to/Liver_MR \
        --config.data.fold=$k --workdir runs/liver_mr/liver_wcc_seed0_fold$k; done
    python -m unc_jax.compare runs/liver_mr/liver_wcc_seed0_fold? --output results

Measured, results/liver_mr: all six with seeds 0, 1 and 2. Again: bash launch/study.sh
DATA --organ liver_mr.

The scale of MR intensities is arbitrary, hence z-scores per case and no window of
intensities. Volumes are 256x256 voxels and 31 to 46 slices of 7.7 mm: here 96x96x32.
"""

from ml_collections import ConfigDict

from configs import base

# Label values; the liver, () here, is found by its name.
_TARGETS = {"liver": (), "spleen": (4,), "kidneys": (2, 3)}
_LOSSES = ("wcc", "dice")


def get_config(variant: str = "liver_wcc") -> ConfigDict:
    target, _, loss = variant.partition("_")
    if target not in _TARGETS or loss not in _LOSSES:
        raise ValueError(
            f"liver_mr:{variant}: choose {{liver,spleen,kidneys}}_{{wcc,dice}}"
        )
    config = base.get_config()
    config.data.root = "Liver_MR"
    config.data.liver_labels = _TARGETS[target]
    config.data.shape = (96, 96, 32)
    config.data.window_hu = ()
    config.data.normalisation = "case"
    config.loss.name = loss
    config.model.features = 8
    config.train.steps = 400
    config.train.batch = 2
    config.train.patch_shape = (64, 64, 16)
    config.train.learning_rate = 4e-3
    config.train.schedule = "cosine"
    config.train.steps_per_call = 20
    config.train.validate_every_steps = 100
    config.train.checkpoint_every_steps = 100
    return config
