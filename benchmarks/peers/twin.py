"""The network of unc_jax.segmentation.unet in PyTorch, with the same weights."""

import numpy as np
import torch
from torch import nn

_BATCH_NORM_MOMENTUM = 0.02  # of the new value; 0.98 of the old, as in our network


class Block(nn.Module):
    def __init__(self, channels: int, width: int, rate: float) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, width, 3, padding=1)
        self.drop = nn.Dropout3d(rate)
        self.norm = nn.BatchNorm3d(width, momentum=_BATCH_NORM_MOMENTUM)

    def forward(self, x):
        return self.norm(self.drop(torch.relu(self.conv(x))))


class UNet(nn.Module):
    """The twin of unc_jax.segmentation.unet.UNet3D."""

    def __init__(self, features: int, rate: float = 0.1, depth: int = 4) -> None:
        super().__init__()
        self.depth = depth
        blocks, channels = {}, 1
        for level in range(depth):
            for i, width in enumerate(((features << level), (features << level) * 2)):
                blocks[f"down{level}_conv{i}"] = Block(channels, width, rate)
                channels = width
        for level in reversed(range(depth - 1)):
            channels += features << level + 1
            for i, width in enumerate(((features << level) * 2, features << level)):
                blocks[f"up{level}_conv{i}"] = Block(channels, width, rate)
                channels = width
        self.blocks = nn.ModuleDict(blocks)
        self.head = nn.Conv3d(features, 1, 1)

    def forward(self, x):
        skips = []
        for level in range(self.depth):
            for i in (0, 1):
                x = self.blocks[f"down{level}_conv{i}"](x)
            if level < self.depth - 1:
                skips.append(x)
                x = nn.functional.max_pool3d(x, 2)
        for level in reversed(range(self.depth - 1)):
            x = torch.cat(
                [nn.functional.interpolate(x, scale_factor=2), skips[level]], 1
            )
            for i in (0, 1):
                x = self.blocks[f"up{level}_conv{i}"](x)
        return self.head(x)

    def load(self, path: str) -> None:
        """Loads the arrays that `ours.weights` wrote."""
        with np.load(path) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in file.files}

        def put(parameter, name: str, *axes: int) -> None:
            array = arrays[name]
            parameter.data.copy_(array.permute(*axes) if axes else array)

        for name, block in self.blocks.items():
            place = f"params/blocks_{name}"
            put(block.conv.weight, f"{place}/kernel", 4, 3, 0, 1, 2)
            put(block.conv.bias, f"{place}/bias")
            put(block.norm.weight, f"{place}/normalise/scale")
            put(block.norm.bias, f"{place}/normalise/bias")
            averages = f"batch_stats/blocks_{name}/normalise"
            block.norm.running_mean.copy_(arrays[f"{averages}/mean"])
            block.norm.running_var.copy_(arrays[f"{averages}/var"])
        self.head.weight.data.copy_(
            arrays["params/head/kernel"].T[..., None, None, None]
        )
        put(self.head.bias, "params/head/bias")
