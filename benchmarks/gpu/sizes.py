"""How large everything is: on a GPU the paper's sizes, and toys to see that it runs."""

from typing import Any, NamedTuple


class Sizes(NamedTuple):
    """Volumes and patches in voxels (x, y, z).

    layers: (patch, channels in and out, of those in from half the size). plane: window
    of the ten samples; own_windows: of the peer by default, with how many at a time.
    study, command: fields of configs/base.py for a run at full size and for a small
    one by the real command. repeat: of a case, and of `steps` training steps.
    """

    features: int
    depth: int
    batch: int
    patch: tuple[int, int, int]
    volume: tuple[int, int, int]
    plane: tuple[int, int, int]
    own_windows: tuple[tuple[int, int, int], int]
    checked: tuple[int, int, int]
    layers: tuple
    layer_batch: int
    samples: int
    steps: int
    same_bits: int
    repeat: tuple[int, int]
    resident: int
    study: dict[str, Any]
    compared: int
    command: dict[str, Any]


_STUDY = {
    "data.root": "phantom",
    "loss.name": "wcc",
    "train.schedule": "cosine",
    "train.learning_rate": 5e-4,
}
FULL = Sizes(
    features=32,
    depth=4,
    batch=8,
    patch=(128, 128, 16),
    volume=(256, 256, 256),
    plane=(256, 256, 16),
    own_windows=((128, 128, 16), 4),
    checked=(128, 128, 32),
    layers=(
        ((128, 128, 16), (32, 64), 0),
        ((128, 128, 16), (128, 64), 64),
        ((128, 128, 16), (1, 32), 0),
        ((128, 128, 16), (64, 32), 0),
        ((64, 64, 8), (256, 128), 128),
        ((32, 32, 4), (768, 256), 512),
        ((16, 16, 2), (256, 512), 0),
    ),
    layer_batch=16,
    samples=10,
    steps=20,
    same_bits=50,
    repeat=(3, 4),
    resident=4,
    study={
        **_STUDY,
        "data.phantom_cases": 8,
        "data.split_shares": [3, 1, 4],
        "train.steps": 400,
        "train.validate_every_steps": 400,
        "train.checkpoint_every_steps": 400,
    },
    compared=3,
    command={
        **_STUDY,
        "data.phantom_cases": 4,
        "data.phantom_size": [96, 96, 64],
        "data.shape": [64, 64, 48],
        "data.split_shares": [2, 1, 1],
        "model.features": 8,
        "model.depth": 3,
        "train.batch": 2,
        "train.patch_shape": [64, 64, 16],
        "train.steps": 160,
        "train.steps_per_call": 10,
        "train.validate_every_steps": 160,
        "train.checkpoint_every_steps": 10,
    },
)
_TINY = {
    **_STUDY,
    "data.phantom_cases": 4,
    "data.phantom_size": [24, 24, 24],
    "data.shape": [16, 16, 8],
    "data.split_shares": [1, 1, 2],
    "model.features": 2,
    "model.depth": 2,
    "model.dropout_rate": 0.3,
    "train.batch": 2,
    "train.patch_shape": [8, 8, 4],
    "train.steps": 4,
    "train.steps_per_call": 2,
    "train.validate_every_steps": 4,
    "train.checkpoint_every_steps": 4,
    "evaluate.bootstrap": 100,
}
TOY = Sizes(
    features=2,
    depth=1,
    batch=2,
    patch=(16, 16, 8),
    volume=(16, 16, 24),
    plane=(16, 16, 8),
    own_windows=((8, 8, 8), 2),
    checked=(16, 16, 16),
    layers=(((16, 16, 8), (2, 4), 0), ((16, 16, 8), (8, 4), 4)),
    layer_batch=2,
    samples=2,
    steps=2,
    same_bits=2,
    repeat=(2, 2),
    resident=2,
    study=_TINY,
    compared=1,
    command={**_TINY, "train.steps": 16, "train.checkpoint_every_steps": 2}
    | {"train.validate_every_steps": 16},
)
