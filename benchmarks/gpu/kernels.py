"""What runs on the device during a task, by time."""

import collections
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from benchmarks.peers.contender import Task

_KEPT = 150  # kernels of the list


def profiled(task: Task, arguments: dict[str, Any]) -> Callable[[], dict[str, Any]]:
    """Profiles a task: its kernels [name, ms, number], the longest first.

    busy_ms: their sum; span_ms: from the first one's begin to the last one's end.
    """
    run = task(**arguments)
    run()

    def traced() -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            with jax.profiler.trace(folder):
                run()
            trace = sorted(Path(folder).rglob("*.xplane.pb"))[-1]
            found = list(events(jax.profiler.ProfileData.from_file(str(trace))))
        time = collections.defaultdict(float)
        number = collections.Counter()
        for name, _, duration in found:
            time[name] += duration
            number[name] += 1
        longest = sorted(time.items(), key=lambda one: -one[1])[:_KEPT]
        first = min((start for _, start, _ in found), default=0)
        last = max((start + length for _, start, length in found), default=0)
        return {
            "kernels": [[name, ms, number[name]] for name, ms in longest],
            "busy_ms": sum(time.values()),
            "span_ms": last - first,
        }

    return traced


def events(data: Any) -> Iterator[tuple[str, float, float]]:
    """Returns name, start and ms of what ran on a GPU's streams, or else of XLA's
    operations on a CPU."""
    planes = list(data.planes)
    on_gpu = any("GPU" in plane.name for plane in planes)
    for plane in planes:
        for line in plane.lines:
            if on_gpu and not ("GPU" in plane.name and line.name.startswith("Stream")):
                continue
            for event in line.events:
                if on_gpu or any(name == "hlo_op" for name, _ in event.stats):
                    yield event.name, event.start_ns / 1e6, event.duration_ns / 1e6
