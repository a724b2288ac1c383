"""The tasks of the benchmark that PyTorch does alone, with the same weights."""

import itertools

import numpy as np
import torch
from torch import nn

from benchmarks.peers.contender import serve
from benchmarks.peers.torch_device import DEVICE, device, dtype_of, layout_of, machine
from benchmarks.peers.twin import UNet


def sampler(
    features: int, rate: float, path: str, form: str, depth: int = 4
) -> nn.Module:
    """Sets normalisation to running averages, dropout on."""
    network = UNet(features, rate, depth)
    network.load(path)
    network.eval()
    for block in network.blocks.values():
        block.drop.train()
    network = network.to(DEVICE, dtype_of(form), memory_format=layout_of(form))
    return torch.compile(network) if "compile" in form else network


def conv(shape, channels, low: int, form: str, gradients: bool, batch: int = 1):
    """Builds a convolution; `low` of its channels are upsampled first."""

    def place(array):
        return array.to(DEVICE, dtype_of(form), memory_format=layout_of(form))

    arrays = [place(torch.randn(batch, channels[0] - low, *shape))]
    if low:
        half = [size // 2 for size in shape]
        arrays.insert(0, place(torch.randn(batch, low, *half)))
    layer = place(nn.Conv3d(*channels, 3, padding=1, bias=False))

    def convolve(arrays):
        *halves, image = arrays
        both = [nn.functional.interpolate(a, scale_factor=2) for a in halves]
        return layer(torch.cat([*both, image], 1) if halves else image)

    def forward() -> None:
        with torch.no_grad():
            convolve(arrays)

    def both() -> None:
        leaves = [array.detach().requires_grad_() for array in arrays]
        layer.zero_grad()
        (convolve(leaves) ** 2).sum().backward()

    return both if gradients else forward


def train(
    features: int,
    patch: list[int],
    batch: int,
    form: str,
    steps: int = 1,
    depth: int = 4,
):
    """Updates on patches that are there already; the host waits for the last alone."""
    update = updates(features, form, depth)
    images = torch.randn(batch, 1, *patch, device=DEVICE)
    labels = (images > 1).float()

    def run() -> float:
        for _ in range(steps):
            loss = update(images, labels)
        return loss.item()

    return run


def updates(features: int, form: str, depth: int = 4):
    """Builds a function of a batch that returns the loss: forward, gradients, NAdam."""
    network = UNet(features, depth=depth).to(DEVICE, memory_format=layout_of(form))
    forward = torch.compile(network) if "compile" in form else network
    optimizer = torch.optim.NAdam(network.parameters(), 1e-4)
    half = torch.autocast(DEVICE, torch.bfloat16, enabled="bfloat16" in form)

    def update(images, labels) -> torch.Tensor:
        images = images.to(DEVICE, memory_format=layout_of(form))
        labels = labels.to(DEVICE)
        optimizer.zero_grad(set_to_none=True)
        with half:
            logits = forward(images)
        p = torch.sigmoid(logits.float())
        loss = 1 - (2 * (p * labels).sum() + 1) / (p.sum() + labels.sum() + 1)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return update


def samples(features, patch, windows, rate, path, form):
    """Draws ten samples of a batch of windows: in a loop, or as one batch of ten."""
    network = sampler(features, rate, path, form)
    images = torch.randn(windows, 1, *patch)
    images = images.to(DEVICE, dtype_of(form), memory_format=layout_of(form))

    @torch.no_grad()
    def run() -> None:
        if "batch" in form:
            torch.sigmoid(network(images.repeat(10, 1, 1, 1, 1)))
        else:
            torch.stack([torch.sigmoid(network(images)) for _ in range(10)])

    return run


def case(features, patch, size, overlap, windows, rate, path, form, count, depth=4):
    """Draws `count` samples by sliding windows with dropout on; returns the measures.

    By a loop over the samples, or in a "batch" form each window `count` times at once.
    Logits are averaged where windows overlap, as MONAI's inferer does.
    """
    network = sampler(features, rate, path, form, depth)
    on_host = volume(size)
    corners = window_corners(size, patch, overlap)
    outputs, passes = (count, 1) if "batch" in form else (1, count)

    @torch.no_grad()
    def run() -> dict[str, float]:
        image = on_host.to(DEVICE)
        sweeps = [
            _sweep(network, image, corners, patch, windows, outputs, form)
            for _ in range(passes)
        ]
        return measures(torch.sigmoid(torch.cat(sweeps)))

    return run


def window_corners(size, patch, overlap: float) -> list[tuple[int, ...]]:
    """Corners at regular steps, the last window at the volume's end."""
    axes = []
    for side, window in zip(size, patch, strict=True):
        step = max(1, int(window * (1 - overlap)))
        starts = range(0, side - window + step, step)
        axes.append([min(start, side - window) for start in starts])
    return list(itertools.product(*axes))


def _sweep(network, image, corners, patch, windows: int, outputs: int, form: str):
    """Returns mean logits (outputs, x, y, z); `windows` of them at a time."""
    total = torch.zeros((outputs, *image.shape), device=DEVICE)
    counts = torch.zeros(image.shape, device=DEVICE)
    places = [
        tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))
        for corner in corners
    ]
    for start in range(0, len(places), windows):
        group = places[start : start + windows]
        # Filled up: another number of windows would be compiled anew.
        full = group + group[-1:] * (windows - len(group))
        cut = torch.stack([image[place] for place in full])[:, None]
        cut = cut.repeat_interleave(outputs, 0)
        cut = cut.to(dtype_of(form), memory_format=layout_of(form))
        found = network(cut).float()[:, 0].reshape(windows, outputs, *patch)
        for place, logits in zip(group, found, strict=False):
            total[(slice(None), *place)] += logits
            counts[place] += 1
    return total / counts


def volume(size):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal(size, np.float32))


def measures(p) -> dict[str, float]:
    """Computes the measures as careful users of PyTorch do: no copy of all samples."""
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


def d_pw(size):
    """Returns the mean Dice of the 45 pairs of ten boolean masks."""
    rng = np.random.default_rng(0)
    masks = torch.from_numpy(
        np.stack([rng.random(size, np.float32) < 0.3 for _ in range(10)])
    ).to(DEVICE)

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
    "nothing": lambda: lambda: None,
    "train": train,
    "samples": samples,
    "case": case,
    "d_pw": d_pw,
}


if __name__ == "__main__":
    serve(TASKS, device())
