"""How much of a training the device waits for the host, from a trace of it.

python -m benchmarks.host_idle [--features 16] [--calls 3] [--steps-per-call 10]

Traces some calls of the training loop's feed, patches drawn from a resident cohort, and
prints the share of the time in which no operation runs on the device, the longest such
gap, and what the gaps between steps come to if all were as long as that. On a CPU the
device is the process's own threads, and pauses within a step are counted too.
"""

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np

from benchmarks.gpu import kernels
from benchmarks.peers.contender import cohort
from benchmarks.peers.ours_training import resident_feed


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.host_idle")
    parser.add_argument("--features", type=int, default=16)
    parser.add_argument("--calls", type=int, default=3)
    parser.add_argument("--steps-per-call", type=int, default=10)
    options = parser.parse_args()
    feed, state = resident_feed(
        options.features,
        (64, 64, 16),
        8,
        *cohort(8, [128, 128, 64]),
        steps_per_call=options.steps_per_call,
    )
    step = 0
    with tempfile.TemporaryDirectory() as folder:
        for call in range(options.calls + 1):
            if call == 1:  # the one before compiled
                jax.profiler.start_trace(folder)
            state, losses = feed(state, step)
            step += options.steps_per_call
            np.asarray(losses)  # as the loop does, to see whether they are finite
        jax.profiler.stop_trace()
        trace = next(Path(folder).rglob("*.xplane.pb"))
        idle, longest, seconds = waiting(busy_intervals(str(trace)))
    steps = options.calls * options.steps_per_call
    between = (steps - 1) * longest / seconds
    print(
        f"{jax.devices()[0].device_kind}: {steps} steps in {options.calls} calls, "
        f"{seconds:.1f} s: nothing runs in {idle:.1%} of the time, for "
        f"{1000 * longest:.1f} ms at most; between steps at most {between:.2%}"
    )


def busy_intervals(path: str) -> np.ndarray:
    """Returns (n, 2), begin and end of every operation on the device, seconds."""
    events = kernels.events(jax.profiler.ProfileData.from_file(path))
    return np.array([(start, start + length) for _, start, length in events]) / 1e3


def waiting(intervals: np.ndarray) -> tuple[float, float, float]:
    """Returns the idle share of the whole, the longest gap and the whole, seconds."""
    begins, ends = intervals[np.argsort(intervals[:, 0])].T
    busy_until = np.maximum.accumulate(ends)
    gaps = np.maximum(begins[1:] - busy_until[:-1], 0)
    whole = busy_until[-1] - begins[0]
    return float(gaps.sum() / whole), float(gaps.max()), float(whole)


if __name__ == "__main__":
    main()
