"""How many windows of a scan hold nothing but air, and could be left out.

python -m benchmarks.air FOLDER ...

Each FOLDER is a Decathlon set of CT. Its scans are brought to 256x256x256 voxels and
clipped to -120 ... 240 HU as for the liver; a window is air when all of it lies at the
lower end. Prints a Markdown table of the share of such windows, by window.
"""

import argparse
from pathlib import Path

import numpy as np

from configs import base
from unc_jax.data import dataset, nifti, patches, preprocess

_WINDOWS = ((256, 256, 16), (128, 128, 16), (64, 64, 16))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.air")
    parser.add_argument("folders", type=Path, nargs="+")
    data = base.get_config().data
    names = ["x".join(map(str, window)) for window in _WINDOWS]
    print(f"| scan | {' | '.join(names)} |\n|{' --- |' * (1 + len(names))}")
    for folder in parser.parse_args().folders:
        task = dataset.read_task(folder)
        for case in (*task.training, *task.test):
            image = nifti.read(case.image).array.astype(np.float32)
            low, high = data.window_hu
            resampled = np.asarray(preprocess.resample(image, data.shape, 1))
            volume = preprocess.window(resampled, low, high)
            shares = (f"{air_share(volume <= low, window):.0%}" for window in _WINDOWS)
            print(f"| {folder.name}/{case.id} | {' | '.join(shares)} |", flush=True)


def air_share(air: np.ndarray, window: tuple[int, int, int]) -> float:
    """Returns the share of windows, overlapping by a quarter, that lie in `air`."""
    corners = patches.window_corners(air.shape, window, 0.25)
    places = (
        tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))
        for corner in corners
    )
    return float(np.mean([air[place].all() for place in places]))


if __name__ == "__main__":
    main()
