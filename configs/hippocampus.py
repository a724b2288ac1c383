r"""Real data that two CPU cores can train on: Decathlon Task04_Hippocampus (MR).

The argument is STRUCTURE_LOSS or STRUCTURE_LOSS_SIZE. The whole hippocampus stands for
the paper's unambiguous target; its posterior part within the organ's bounding box for
the ambiguous one. Patches span the plane of the volume; "large" and "small" ones half
and a quarter of its width, as in the paper, at the same number of voxels per update.

    python -m unc_jax.main --config configs/hippocampus.py:whole_wcc \
        --config.data.root=/path/to/Task04_Hippocampus

The paper's six models with three seeds each: results/hippocampus. Plane patches, one
seed (two CPU cores, 84 test cases), mean Dice test (training), rho of CV, D_pw and
U_labelled:
whole_dice  0.885 (0.892)   0.05   0.09  -0.33
whole_wcc   0.874 (0.881)   0.08  -0.04  -0.07
part_dice   0.973 (0.983)  -0.33   0.38  -0.20
part_wcc    0.972 (0.983)  -0.24   0.22  -0.32

Weights of the cross-entropy: DeepNeuro's confusion weights ((0.1, 3), (3, 1)) train
stably here too, with batch normalisation and NAdam at 2e-3, but reach less. Validation
Dice after 250 and 500 steps: whole 0.807 and 0.839 (class weights ((1, 1), (3, 3)):
0.855 and 0.866), part 0.926 and 0.944 (0.952 and 0.968). Hence class weights.

Intensities differ by orders of magnitude between cases, hence z-scores per case and no
window.
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
    return config
