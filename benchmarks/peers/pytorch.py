"""The tasks of the benchmark, done by PyTorch and MONAI, with the same weights."""

import itertools

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.inferers import sliding_window_inference
from monai.transforms import Compose, RandCropByPosNegLabeld
from torch import nn
from torch.utils.data import RandomSampler

from benchmarks.peers.contender import cohort, serve
from benchmarks.peers.torch_device import DEVICE, device, dtype_of, layout_of, machine
from benchmarks.peers.twin import UNet


def _sampler(features: int, rate: float, path: str, form: str) -> nn.Module:
    """Normalisation on running averages, dropout on."""
    network = UNet(features, rate)
    network.load(path)
    network.eval()
    for block in network.blocks.values():
        block.drop.train()
    network = network.to(DEVICE, dtype_of(form), memory_format=layout_of(form))
    return torch.compile(network) if "compile" in form else network


def conv(shape, channels, low: int, form: str, gradients: bool, batch: int = 1):
    """Convolution; `low` of its channels are upsampled first, as in the network."""

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


def train(features: int, patch: list[int], batch: int, form: str):
    """One update on patches that are there already."""
    update = _updates(features, form)
    images = torch.randn(batch, 1, *patch, device=DEVICE)
    labels = (images > 1).float()
    return lambda: update(images, labels)


def fed(features, patch, batch, cases, size, form):
    """An update on patches that MONAI draws from a cohort in memory."""
    update = _updates(features, form)
    images, labels = cohort(cases, size)
    listed = [
        {"image": torch.from_numpy(i[None]), "label": torch.from_numpy(t[None])}
        for i, t in zip(images.astype(np.float32), labels, strict=True)
    ]
    draw = RandCropByPosNegLabeld(
        ["image", "label"], "label", spatial_size=patch, num_samples=1
    )
    data = CacheDataset(listed, Compose([draw]), progress=False)
    sampler = RandomSampler(data, replacement=True, num_samples=1_000_000)
    batches = iter(
        DataLoader(
            data, batch_size=batch, sampler=sampler, num_workers=0, drop_last=True
        )
    )

    def run() -> float:
        drawn = next(batches)
        return update(drawn["image"].as_tensor(), drawn["label"].as_tensor().float())

    return run


def _updates(features: int, form: str):
    """A function of a batch: forward, gradients, NAdam."""
    network = UNet(features).to(DEVICE, memory_format=layout_of(form))
    forward = torch.compile(network) if "compile" in form else network
    optimizer = torch.optim.NAdam(network.parameters(), 1e-4)
    half = torch.autocast(DEVICE, torch.bfloat16, enabled="bfloat16" in form)

    def update(images, labels) -> float:
        images = images.to(DEVICE, memory_format=layout_of(form))
        labels = labels.to(DEVICE)
        optimizer.zero_grad(set_to_none=True)
        with half:
            logits = forward(images)
        p = torch.sigmoid(logits.float())
        loss = 1 - (2 * (p * labels).sum() + 1) / (p.sum() + labels.sum() + 1)
        loss.backward()
        optimizer.step()
        return loss.item()

    return update


def samples(features, patch, windows, rate, path, form):
    """Ten passes over a batch of windows: in a loop, or as one batch of ten."""
    network = _sampler(features, rate, path, form)
    images = torch.randn(windows, 1, *patch)
    images = images.to(DEVICE, dtype_of(form), memory_format=layout_of(form))

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
                torch.sigmoid(_slide(network, volume, patch, windows, overlap, form))
                for _ in range(count)
            ]
        )
        return _measures(probabilities)

    return run


def _volume(size):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.standard_normal(size, np.float32))


def _slide(network, volume, patch, windows: int, overlap: float, form: str = ""):
    """Float32 logits; the windows are in the type and layout of the form."""

    def predictor(images):
        images = images.to(dtype_of(form), memory_format=layout_of(form))
        return network(images).float()

    volume = volume.to(DEVICE)[None, None]
    return sliding_window_inference(volume, patch, windows, predictor, overlap=overlap)[
        0, 0
    ]


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
    torch.backends.cudnn.allow_tf32 = False
    network = UNet(features)
    network.load(path)
    network = network.to(DEVICE).eval()
    volume = _volume(size)
    with torch.no_grad():
        found = torch.sigmoid(_slide(network, volume, patch, 2, 0.0)).cpu().numpy()
    difference = float(np.abs(found - np.load(expected)).max())
    return lambda: difference


def d_pw(size):
    """The 45 pairs of ten boolean masks."""
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
    "fed": fed,
    "samples": samples,
    "case": case,
    "plain": plain,
    "d_pw": d_pw,
}


if __name__ == "__main__":
    serve(TASKS, device())
