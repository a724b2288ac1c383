"""The tasks of the benchmark, done by PyTorch and MONAI, with the same weights."""

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from benchmarks.peers.contender import serve

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
        """The arrays that `ours.weights` wrote."""
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


def _layout(form: str):
    last = "channels_last" in form
    return torch.channels_last_3d if last else torch.contiguous_format


def _sampler(features: int, rate: float, path: str, form: str) -> nn.Module:
    """Normalisation on running averages, dropout on."""
    network = UNet(features, rate)
    network.load(path)
    network.eval()
    for block in network.blocks.values():
        block.drop.train()
    network = network.to(memory_format=_layout(form))
    return torch.compile(network) if "compile" in form else network


def machine() -> Callable[[], dict[str, Any]]:
    a = torch.ones(3072, 3072)
    best = 0.0
    for _ in range(6):
        started = time.perf_counter()
        a @ a
        best = max(best, 2 * 3072**3 / (time.perf_counter() - started) / 1e9)
    return lambda: {"torch": torch.__version__, "peak_gflops": best}


def conv(shape: list[int], channels: list[int], form: str, gradients: bool):
    image = torch.randn(1, channels[0], *shape).to(memory_format=_layout(form))
    layer = nn.Conv3d(*channels, 3, padding=1, bias=False)
    layer = layer.to(memory_format=_layout(form))

    def forward() -> None:
        with torch.no_grad():
            layer(image)

    def both() -> None:
        leaf = image.detach().requires_grad_()
        layer.zero_grad()
        (layer(leaf) ** 2).sum().backward()

    return both if gradients else forward


def train(features: int, patch: list[int], batch: int, form: str):
    network = UNet(features).to(memory_format=_layout(form))
    optimizer = torch.optim.NAdam(network.parameters(), 1e-4)
    images = torch.randn(batch, 1, *patch).to(memory_format=_layout(form))
    labels = (images > 1).float()

    def run() -> float:
        optimizer.zero_grad(set_to_none=True)
        p = torch.sigmoid(network(images))
        loss = 1 - (2 * (p * labels).sum() + 1) / (p.sum() + labels.sum() + 1)
        loss.backward()
        optimizer.step()
        return float(loss)

    return run


def samples(features, patch, windows, rate, path, form):
    """Ten passes over a batch of windows: in a loop, or as one batch of ten."""
    network = _sampler(features, rate, path, form)
    images = torch.randn(windows, 1, *patch).to(memory_format=_layout(form))

    @torch.no_grad()
    def run() -> None:
        if "batch" in form:
            torch.sigmoid(network(images.repeat(10, 1, 1, 1, 1)))
        else:
            torch.stack([torch.sigmoid(network(images)) for _ in range(10)])

    return run


def case(features, patch, size, overlap, windows, rate, path, form, count):
    """MONAI's sliding windows `count` times with dropout on, and the measures."""
    network = _sampler(features, rate, path, form)
    volume = _volume(size)

    @torch.no_grad()
    def run() -> dict[str, float]:
        probabilities = torch.stack(
            [
                torch.sigmoid(_slide(network, volume, patch, windows, overlap))
                for _ in range(count)
            ]
        )
        return _measures(probabilities)

    return run


def _volume(size):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal(size, np.float32))


def _slide(network, volume, patch, windows: int, overlap: float):
    return sliding_window_inference(
        volume[None, None], patch, windows, network, overlap=overlap
    )[0, 0]


def _measures(p) -> dict[str, float]:
    """As a careful user of PyTorch would write them: no copy of all samples."""
    mean = p.mean(0)
    term = sum(-torch.special.xlogy(one, one) for one in p) / len(p)
    masks = p >= 0.5
    volumes = masks.sum((1, 2, 3)).double()
    _ = volumes.var(unbiased=False) / (volumes.mean() + 1)
    _ = term[mean >= 0.5].mean()
    pairs = itertools.combinations(range(len(p)), 2)
    dice = [
        2 * float((masks[i] & masks[j]).sum()) / float(volumes[i] + volumes[j])
        for i, j in pairs
    ]
    return {"d_pw": float(np.mean(dice)), "mean": float(mean.mean())}


def plain(features, patch, size, path, expected):
    """Largest difference of a pass without dropout from ours, window by window."""
    network = UNet(features)
    network.load(path)
    network.eval()
    volume = _volume(size)
    with torch.no_grad():
        found = torch.sigmoid(_slide(network, volume, patch, 2, 0.0)).numpy()
    difference = float(np.abs(found - np.load(expected)).max())
    return lambda: difference


def d_pw(size):
    """The 45 pairs of ten boolean masks."""
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(
        np.stack([rng.random(size, np.float32) < 0.3 for _ in range(10)])
    )

    def run() -> float:
        volumes = masks.sum((1, 2, 3)).double()
        dice = [
            2 * float((masks[i] & masks[j]).sum()) / float(volumes[i] + volumes[j])
            for i, j in itertools.combinations(range(10), 2)
        ]
        return float(np.mean(dice))

    return run


TASKS = {
    "machine": machine,
    "conv": conv,
    "train": train,
    "samples": samples,
    "case": case,
    "plain": plain,
    "d_pw": d_pw,
}

if __name__ == "__main__":
    serve(TASKS)
