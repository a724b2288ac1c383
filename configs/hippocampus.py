r"""Real data that two CPU cores can train on: Decathlon Task04_Hippocampus (MR).

The argument is STRUCTURE_LOSS or STRUCTURE_LOSS_SIZE: structure whole or part, loss
wcc (weighted categorical cross-entropy) or dice, size large or small. The whole
hippocampus stands for the paper's unambiguous target; its posterior part within the
organ's bounding box for the ambiguous one. Large and small patches have half and a
quarter of the volume's width, as in the paper, at the same number of voxels per update;
without a size they span its plane.

    python -m unc_jax.main --config configs/hippocampus.py:whole_wcc \
        --config.data.root=/path/to/Task04_Hippocampus

Measured: results/hippocampus, the paper's six models with three seeds each.

Weights of the cross-entropy: DeepNeuro's confusion weights ((0.1, 3), (3, 1)) train
stably here too, with batch normalisation and NAdam at 2e-3, but reach less. Validation
Dice after 250 and 500 steps: whole 0.807 and 0.839 (class weights ((1, 1), (3, 3)):
0.855 and 0.866), part 0.926 and 0.944 (0.952 and 0.968). Hence class weights.

Intensities differ by orders of magnitude between cases, hence z-scores per case and no
window of intensities.
"""

from ml_collections import ConfigDict

from configs import base

_LOSSES = ("wcc", "dice")
_VOLUMES = {"whole": (36, 52, 36), "part": (32, 48, 32)}
# (patch, batch); sides are multiples of 4, as three levels need.
_PATCHES = {
    ("whole", "plane"): ((36, 52, 16), 4),
    ("whole", "large"): ((20, 28, 16), 8),
    ("whole", "small"): ((8, 12, 16), 48),
    ("part", "plane"): ((32, 48, 16), 4),
    ("part", "large"): ((16, 24, 16), 8),
    ("part", "small"): ((8, 12, 16), 32),
}


def get_config(variant: str = "whole_wcc") -> ConfigDict:
    structure, _, rest = variant.partition("_")
    loss, _, size = rest.partition("_")
    size = size or "plane"
    if loss not in _LOSSES or (structure, size) not in _PATCHES:
        raise ValueError(
            f"hippocampus:{variant}: choose {{whole,part}}_{{wcc,dice}}, and perhaps "
            "_large or _small"
        )
    config = base.get_config()
    config.data.root = "Task04_Hippocampus"
    config.data.target = "liver" if structure == "whole" else "tumor"
    config.data.liver_labels, config.data.tumor_labels = (1, 2), (2,)
    config.data.shape = _VOLUMES[structure]
    config.data.window_hu = ()
    config.data.normalisation = "case"
    config.loss.name = loss
    config.model.features = 12
    config.model.depth = 3
    config.train.steps = 1250
    config.train.patch_shape, config.train.batch = _PATCHES[structure, size]
    config.train.learning_rate = 2e-3
    config.train.schedule = "cosine"
    config.train.steps_per_call = 25
    config.train.validate_every_steps = 250
    config.train.checkpoint_every_steps = 250
    config.evaluate.window_batch = 8
    config.evaluate.mask_scope = "volume"  # as in results/hippocampus
    return config
