"""Resampling and preparing one CT: this package, SciPy and MONAI, side by side.

    python benchmarks/preparation.py [--torch-python PYTHON_WITH_MONAI] [--repeat 5]

Each contender runs in a process of its own, so that its peak memory is its own, on the
same int16 volume, once in the memory order scans are stored in (x fastest) and once in
NumPy's (z fastest). A contender that is not installed is left out with a word. The
time is the median of the repeats after one that warms up; "beside input" is the peak
of resident memory less what the process held before it began. The last column is the
largest difference from our voxels: none, but for MONAI's Spacing, which aligns the
centres of the first voxels, so that its grid lies elsewhere.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

ORDERS = {"F": "x fastest", "C": "z fastest"}
OURS = {"image": "unc_jax image", "label": "unc_jax label"}
RIVALS = {
    "image": ("scipy zoom", "monai Resize", "monai Spacing"),
    "label": ("scipy zoom nearest", "monai Resize nearest"),
}
NEEDS_TORCH = ("monai Resize", "monai Spacing", "monai Resize nearest")


def main() -> None:
    arguments = _arguments()
    if arguments.contender:
        print(json.dumps(_measure(arguments)))
        return
    size, goal = (
        "x".join(map(str, sizes)) for sizes in (arguments.shape, arguments.to)
    )
    print(f"{size} int16 -> {goal}, median of {arguments.repeat}\n")
    print("| what | memory order | s | times ours | beside input, MB | difference |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind, rivals in RIVALS.items():
            for order in ORDERS:
                _compare(arguments, (OURS[kind], *rivals), order, Path(folder))
        _case(arguments, Path(folder))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", type=int, nargs=3, default=(512, 512, 450))
    parser.add_argument("--to", type=int, nargs=3, default=(256, 256, 256))
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--torch-python", default=sys.executable)
    for hidden in ("--contender", "--order", "--result", "--input"):
        parser.add_argument(hidden, default="", help=argparse.SUPPRESS)
    return parser.parse_args()


def _compare(
    arguments: argparse.Namespace, names: tuple[str, ...], order: str, folder: Path
) -> None:
    ours: dict[str, Any] = {}
    reference = None
    for name in names:
        result = folder / "result.npy"
        row = _run(arguments, name, "--order", order, "--result", str(result))
        if not row:
            print(f"| {name} | | not installed | | | |", flush=True)
            continue
        volume = np.load(result)
        if reference is None:
            ours, reference = row, volume
        print(
            f"| {name} | {ORDERS[order]} | {row['seconds']:.3f} | "
            f"{row['seconds'] / ours['seconds']:.1f} | {row['megabytes']:.0f} | "
            f"{_difference(volume, reference)} |",
            flush=True,
        )


def _case(arguments: argparse.Namespace, folder: Path) -> None:
    """Prepares a whole case: reads and checks two .nii.gz, for liver and for tumour."""
    import nibabel as nib

    volume = _volume(arguments.shape, "F")
    affine = np.diag([-0.75, -0.75, 1.0, 1.0])
    nib.save(nib.Nifti1Image(volume, affine), folder / "image.nii.gz")
    label = _volume(arguments.shape, "F", label=True)
    nib.save(nib.Nifti1Image(label, affine), folder / "label.nii.gz")
    for name in ("case liver", "case tumor"):
        row = _run(arguments, name, "--input", str(folder))
        print(f"| {name}, from file | | {row['seconds']:.3f} | | | |")
        print(f"| {name}, peak of the process | | | | {row['peak_megabytes']:.0f} | |")


def _run(arguments: argparse.Namespace, name: str, *options: str) -> dict[str, Any]:
    """Returns what `_measure` printed in its own process; empty if not installed."""
    python = arguments.torch_python if name in NEEDS_TORCH else sys.executable
    command = [python, __file__, "--contender", name, *options]
    command += ["--repeat", str(arguments.repeat)]
    for option, sizes in (("--shape", arguments.shape), ("--to", arguments.to)):
        command += [option, *map(str, sizes)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "ModuleNotFoundError" in done.stderr:
        return {}
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    work = _contender(arguments)
    before, seconds, volume = _peak_megabytes(), [], None
    for _ in range(arguments.repeat + 1):
        volume = None  # as a caller would, who keeps one result at a time
        start = time.perf_counter()
        volume = work()
        seconds.append(time.perf_counter() - start)
    peak = _peak_megabytes()
    if arguments.result:
        np.save(arguments.result, np.ascontiguousarray(volume))
    return {
        "seconds": statistics.median(seconds[1:]),
        "megabytes": peak - before,
        "peak_megabytes": peak,
    }


def _contender(arguments: argparse.Namespace) -> Callable[[], Any]:
    """Returns the call to time; whatever it needs is imported and built before."""
    name, to = arguments.contender, tuple(arguments.to)
    if name.startswith("case"):
        return _case_contender(name.split()[1], to, Path(arguments.input))
    label = "label" in name or "nearest" in name
    volume = _volume(arguments.shape, arguments.order, label=label)
    if name in OURS.values():
        from unc_jax.data.preprocess import resample

        return lambda: resample(volume, to, 1 if name == OURS["image"] else 0)
    if name.startswith("scipy"):
        from scipy import ndimage

        zoom = [b / a for a, b in zip(volume.shape, to, strict=True)]
        order, dtype = (1, np.float32) if name == "scipy zoom" else (0, np.uint8)
        return lambda: ndimage.zoom(
            volume, zoom, dtype, order=order, mode="nearest", grid_mode=True
        )
    return _monai_contender(name, volume, to)


def _monai_contender(
    name: str, volume: np.ndarray, to: tuple[int, ...]
) -> Callable[[], Any]:
    import torch
    from monai.data import MetaTensor  # pyright: ignore
    from monai.transforms import Resize, Spacing  # pyright: ignore

    if name == "monai Spacing":
        spacing = [a / b for a, b in zip(volume.shape, to, strict=True)]
        transform = Spacing(spacing, padding_mode="border")
        scan = MetaTensor(torch.from_numpy(volume)[None], affine=torch.eye(4))
        return lambda: transform(scan)[0].numpy()
    mode = "nearest-exact" if "nearest" in name else "trilinear"
    resize = Resize(to, mode=mode)
    return lambda: resize(volume[None])[0].numpy()


def _case_contender(
    target: str, to: tuple[int, ...], folder: Path
) -> Callable[[], Any]:
    from unc_jax.data.dataset import Case
    from unc_jax.data.prepare_case import Recipe, prepare_case

    case = Case("case", folder / "image.nii.gz", folder / "label.nii.gz")
    x, y, z = to if target == "liver" else (284, 256, 133)
    recipe = Recipe(
        target, (x, y, z), (-120.0, 240.0), -50.0, (1, 2), (2,), "population"
    )
    return lambda: prepare_case(case, recipe).image


def _volume(shape: tuple[int, ...], order: Any, *, label: bool = False) -> np.ndarray:
    """Draws smooth structure and noise like CT; plane by plane, to need no memory."""
    generator = np.random.default_rng(0)
    noise = generator.integers(-20, 20, shape[:2], dtype=np.int16)
    x, y = (np.linspace(-1, 1, size) for size in shape[:2])
    radius = np.hypot(x[:, None], y[None, :])
    volume = np.empty(shape, np.uint8 if label else np.int16, order=order)
    for z in range(shape[2]):
        inside = radius < 0.6 + 0.2 * np.sin(z / 30)
        if label:
            volume[:, :, z] = inside
        else:
            volume[:, :, z] = np.where(inside, 60, -1000) + np.roll(noise, z * 7, 0)
    return volume


def _difference(volume: np.ndarray, reference: np.ndarray) -> str:
    if volume.shape != reference.shape:
        return f"shape {volume.shape}"
    worst = max(
        float(np.abs(a.astype(np.float32) - b.astype(np.float32)).max())
        for a, b in zip(volume, reference, strict=True)
    )
    return f"{worst:.2g}"


def _peak_megabytes() -> float:
    # Not getrusage: its peak begins at that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


if __name__ == "__main__":
    main()
