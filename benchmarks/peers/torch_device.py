"""Where PyTorch computes: the first GPU, or the CPU; in which layout and type."""

import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peers.contender import HOST, Device

_ON_GPU = torch.cuda.is_available()
DEVICE = "cuda" if _ON_GPU else "cpu"
torch.backends.cudnn.benchmark = True  # the fastest algorithm of each convolution


def layout_of(form: str):
    last = "channels_last" in form
    return torch.channels_last_3d if last else torch.contiguous_format


def dtype_of(form: str):
    return torch.bfloat16 if "bfloat16" in form else torch.float32


def machine() -> Callable[[], dict[str, Any]]:
    size, dtype = (8192, torch.bfloat16) if _ON_GPU else (3072, torch.float32)
    a = torch.randn(size, size, device=DEVICE, dtype=dtype)
    best = 0.0
    for _ in range(6):
        started = time.perf_counter()
        a @ a
        _finish()
        best = max(best, 2 * size**3 / (time.perf_counter() - started) / 1e9)
    name = torch.cuda.get_device_name() if _ON_GPU else "cpu"
    return lambda: {"torch": torch.__version__, "device": name, "peak_gflops": best}


def _finish() -> None:
    if _ON_GPU:
        torch.cuda.synchronize()


def device() -> Device:
    def peak_mb() -> float:
        return torch.cuda.max_memory_allocated() / 2**20

    if not _ON_GPU:
        return HOST
    return Device(_finish, torch.cuda.reset_peak_memory_stats, peak_mb)
