"""A contender is a process that takes tasks, one JSON line each, and times them.

Processes live through a whole benchmark, so that contenders can take turns on the same
machine within seconds of each other, each with a peak of memory of its own.
"""

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

# From the arguments of a task to a function that does it once and returns None or JSON.
Task = Callable[..., Callable[[], Any]]

# Of several processes on one GPU none may take its memory beforehand.
_ONE_GPU = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "CUDA_VISIBLE_DEVICES": "0"}
_ROOT = Path(__file__).parents[2]
LATE = "stopped, its time was up"


class Device(NamedTuple):
    """What a task runs on: waiting for it, and its peak of memory in MB."""

    finish: Callable[[], None]
    reset_peak: Callable[[], None]
    peak_mb: Callable[[], float]


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


HOST = Device(lambda: None, _reset_peak, _peak_mb)


def serve(tasks: dict[str, Task], device: Device) -> None:
    """Answers lines of standard input until it ends.

    A task is set up, and done once to warm up, when its arguments are first seen; that
    takes `first_seconds`. The argument `once` says that this is the only time: for what
    takes minutes and compiles nothing.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print what they like
    ready: dict[str, Callable[[], Any]] = {}
    once = False

    def timed(run: Callable[[], Any]) -> tuple[Any, float]:
        started = time.perf_counter()
        answer = run()
        device.finish()
        return answer, time.perf_counter() - started

    for line in sys.stdin:
        asked = json.loads(line)
        try:
            reply: dict[str, Any] = {}
            if line not in ready:
                ready.clear()  # what a former task held is not this one's memory
                device.reset_peak()
                once = asked["arguments"].pop("once", False)
                task = functools.partial(tasks[asked["task"]], **asked["arguments"])
                ready[line], setting_up = timed(task)
                reply["answer"], first = timed(ready[line])
                reply["first_seconds"] = setting_up + first
            if once:
                reply["seconds"] = reply["first_seconds"]
            else:
                reply["answer"], reply["seconds"] = timed(ready[line])
        except Exception as error:
            traceback.print_exc()
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        reply["peak_mb"] = device.peak_mb()
        print(json.dumps(reply), file=answers, flush=True)


class Contender:
    """The other end of `serve`: a fresh process, with these variables more.

    log: the open file for what it says besides its answers.
    """

    def __init__(
        self,
        python: str,
        module: str,
        *,
        log: IO[str] | None = None,
        **environment: str,
    ) -> None:
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=_ROOT,
            env={**_ONE_GPU, **os.environ, **environment},
            process_group=0,
        )
        self._late = False
        self._alarm: threading.Timer | None = None

    def live_until(self, end: float) -> None:
        """Has it killed at that time of `time.monotonic` with all that it started."""
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = threading.Timer(max(end - time.monotonic(), 0), self._kill)
        self._alarm.daemon = True
        self._alarm.start()

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        """Does a task once more; returns seconds, answer and peak_mb, or an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"task": task, "arguments": arguments})
        reply = ""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            reply = self._process.stdout.readline()
        died = LATE if self._late else "the process died"
        return json.loads(reply) if reply else {"error": died}

    def lives(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        if self._alarm is not None:
            self._alarm.cancel()

    def _kill(self) -> None:
        self._late = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


def cohort(cases: int, size: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Draws noise and a ball: images float16 and labels uint8 (cases, x, y, z)."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((cases, *size), np.float32).astype(np.float16)
    place = np.indices(size) / np.reshape(size, (3, 1, 1, 1)) - 0.5
    ball = ((place**2).sum(0) < 0.1).astype(np.uint8)
    return images, np.broadcast_to(ball, images.shape).copy()
