"""The tasks of the benchmark, done by PyTorch and MONAI, with the same weights."""

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader
from monai.inferers import sliding_window_inference
from monai.transforms import Compose, RandCropByPosNegLabeld
from torch.utils.data import RandomSampler

from benchmarks.peers import torch_alone
from benchmarks.peers.contender import cohort, serve
from benchmarks.peers.torch_device import DEVICE, device, dtype_of, layout_of
from benchmarks.peers.twin import UNet


def fed(features, patch, batch, cases, size, form):
    """Times an update on patches that MONAI draws from a cohort in memory."""
    update = torch_alone.updates(features, form)
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
        images, labels = (drawn[name].as_tensor() for name in ("image", "label"))
        return update(images, labels.float()).item()

    return run


def case(features, patch, size, overlap, windows, rate, path, form, count):
    """Runs MONAI's sliding windows `count` times with dropout on, and the measures."""
    network = torch_alone.sampler(features, rate, path, form)
    volume = torch_alone.volume(size)

    @torch.no_grad()
    def run() -> dict[str, float]:
        probabilities = torch.stack(
            [
                torch.sigmoid(_slide(network, volume, patch, windows, overlap, form))
                for _ in range(count)
            ]
        )
        return torch_alone.measures(probabilities)

    return run


def _slide(network, volume, patch, windows: int, overlap: float, form: str = ""):
    """Returns float32 logits; the windows are in the type and layout of the form."""

    def predictor(images):
        images = images.to(dtype_of(form), memory_format=layout_of(form))
        return network(images).float()

    volume = volume.to(DEVICE)[None, None]
    return sliding_window_inference(volume, patch, windows, predictor, overlap=overlap)[
        0, 0
    ]


def plain(features, patch, size, path, expected):
    """Returns the largest difference of a plain pass from ours, window by window."""
    torch.backends.cudnn.allow_tf32 = False
    network = UNet(features)
    network.load(path)
    network = network.to(DEVICE).eval()
    volume = torch_alone.volume(size)
    with torch.no_grad():
        found = torch.sigmoid(_slide(network, volume, patch, 2, 0.0)).cpu().numpy()
    difference = float(np.abs(found - np.load(expected)).max())
    return lambda: difference


TASKS = {**torch_alone.TASKS, "fed": fed, "case": case, "plain": plain}


if __name__ == "__main__":
    serve(TASKS, device())
