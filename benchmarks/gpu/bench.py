"""The clock, the processes and the table of one run of `benchmarks.gpu`."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from benchmarks.gpu.sizes import FULL, Sizes
from benchmarks.peers.contender import LATE, Contender
from benchmarks.peers.table import Row
from benchmarks.peers.turns import turns_of

_MODULES = {"ours": "benchmarks.gpu.tasks", "peer": "benchmarks.peers.torch_alone"}
NO_TORCH = "left out: PyTorch is not installed here"


class Bench:
    """What the parts share; every result goes through `say`.

    folder: of the results; scratch: of what no one needs afterwards.
    """

    def __init__(self, sizes: Sizes, seconds: float, folder: Path) -> None:
        self.sizes, self.folder = sizes, folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "kernels.txt").unlink(missing_ok=True)  # it is added to
        self._temporary = tempfile.TemporaryDirectory(prefix="benchmarks_gpu_")
        self.scratch = Path(self._temporary.name)
        self.weights = str(self.scratch / "weights.npz")  # ours writes, the peer loads
        self.rows: list[Row] = []
        self.best: dict[str, dict[str, float]] = {}
        self.part = ""
        self.has_torch = importlib.util.find_spec("torch") is not None
        self._end = time.monotonic() + seconds
        self._until = self._end
        self._log: IO[str] = (folder / "log.txt").open("w")
        self._spare: dict[str, Contender] = {}
        self._pool = ThreadPoolExecutor(2)
        if sizes is not FULL:  # what takes time at toy sizes is compiling
            os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
        # Programs that several processes need are compiled by the first of them.
        os.environ |= {
            "JAX_COMPILATION_CACHE_DIR": str(self.scratch / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
            "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
        }

    def left(self) -> float:
        """Seconds until the end of the run."""
        return self._end - time.monotonic()

    def begin(self, part: str, most: float) -> None:
        """Begins a part, whose processes live for `most` seconds at most."""
        self.part = part
        self._until = min(self._end, time.monotonic() + most)

    def say(self, what: str, told: str, **facts: Any) -> None:
        """Prints a result and keeps it in gpu.json at once; facts: plain JSON."""
        self.rows.append({"part": self.part, "what": what, "told": told, **facts})
        print(f"[{self.left():4.0f} s left] {self.part}: {what}: {told}", flush=True)
        text = json.dumps(self.rows, indent=1)
        (self.folder / "gpu.json").write_text(text + "\n")

    def fail(self, what: str, reason: str) -> None:
        """Says why there is no result: an error, or the time."""
        if LATE in reason:
            self.say(what, f"left out: {reason}", left_out=True)
        else:
            self.say(what, f"FAILED: {reason[:200]}", failed=True)

    def fresh(self, side: str = "ours", **environment: str) -> Contender:
        """Starts a process of its own, killed when the part's time is up.

        Where cores are idle, the next one is started beside it: importing takes long.
        """
        if environment:
            contender = self._start(side, **environment)
        else:
            contender = self._spare.pop(side, None) or self._start(side)
            if (os.cpu_count() or 1) > 4:
                self._spare[side] = self._start(side)
        contender.live_until(self._until)
        return contender

    def done(self, contender: Contender, side: str = "ours") -> None:
        """Ends a process that `fresh` gave, but at toy sizes keeps it for the next.

        There a peak of memory of its own means nothing, and starting takes longest.
        """
        if self.sizes is FULL or side in self._spare or not contender.lives():
            contender.close()
        else:
            self._spare[side] = contender

    def _start(self, side: str, **environment: str) -> Contender:
        return Contender(sys.executable, _MODULES[side], log=self._log, **environment)

    def once(self, task: str, **arguments: Any) -> Row:
        """Runs a task of ours in a process of its own; raises RuntimeError."""
        contender = self.fresh()
        try:
            return checked(contender.do(task, **arguments))
        finally:
            self.done(contender)

    def aside(self, *tasks: tuple[str, dict[str, Any]]) -> Future[list[Row]]:
        """Tasks done one after the other by a process on the CPU, beside all else."""

        contender = self.fresh(JAX_PLATFORMS="cpu")

        def run() -> list[Row]:
            try:
                return [checked(contender.do(name, **given)) for name, given in tasks]
            finally:
                contender.close()

        return self._pool.submit(run)

    def race(
        self,
        what: str,
        task: str,
        *,
        ours: Row,
        peer: Row,
        repeat: int,
        per: int = 1,
        held: dict[str, Contender] | None = None,
    ) -> None:
        """Times forms taking turns; `per` of the things that are told are one run.

        held: contenders by form, which live on; else each is a process of its own.
        """
        if peer and not self.has_torch:
            for form in peer:
                self.say(f"{what}, PyTorch {form}", NO_TORCH, left_out=True)
            peer = {}
        own = {} if held else {form: self.fresh() for form in ours}
        own |= {} if held else {form: self.fresh("peer") for form in peer}
        replies = turns_of(held or own, task, {**ours, **peer}, repeat)
        for form, contender in own.items():
            self.done(contender, "ours" if form in ours else "peer")
        for form, reply in replies.items():
            name = form if form in ours else f"PyTorch {form}"
            self.time(f"{what}, {name}", reply, per)
            if "seconds" in reply:
                known = self.best.setdefault(what, {})
                known[name] = reply["seconds"] / per
        times = self.best.get(what, {})
        if ratio := ratio_of(times):
            self.say(f"{what}, best of PyTorch / ours", f"{ratio:.2f}", ratio=ratio)

    def time(self, what: str, reply: Row, per: int = 1) -> None:
        """Says the time, or why there is none, of a contender's reply."""
        if "seconds" not in reply:
            self.fail(what, reply["error"])
            return
        seconds, peak = reply["seconds"] / per, reply["peak_mb"] / 1024
        told = f"{1e3 * seconds:.1f} ms, {peak:.1f} GB"
        told += f", first {reply['first_seconds']:.0f} s"
        facts = {"seconds": seconds, "peak_gb": peak, "answer": reply.get("answer")}
        if "error" in reply:
            told += f", then: {reply['error'][:200]}"
        self.say(what, told, first_seconds=reply["first_seconds"], **facts)

    def command(self, arguments: Iterable[str], **environment: str) -> subprocess.Popen:
        """Starts `python ARGUMENTS`, killed when the part's time is up."""
        process = subprocess.Popen(
            [sys.executable, *arguments],
            env={"XLA_PYTHON_CLIENT_PREALLOCATE": "false", **os.environ, **environment},
            stdout=self._log,
            stderr=self._log,
            cwd=Path(__file__).parents[2],
            process_group=0,
        )
        alarm = threading.Timer(max(self._until - time.monotonic(), 0), end, [process])
        alarm.daemon = True
        alarm.start()
        return process

    def close(self) -> None:
        for contender in self._spare.values():
            contender.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._log.close()
        self._temporary.cleanup()


def end(process: subprocess.Popen) -> None:
    """Kills a process of `Bench.command` and what it started, if it still runs."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def checked(reply: Row) -> Row:
    if "error" in reply:
        raise RuntimeError(reply["error"])
    return reply


def ratio_of(times: dict[str, float]) -> float | None:
    """Returns PyTorch's fastest by our fastest seconds; None without one of both."""
    ours = [time for name, time in times.items() if not name.startswith("PyTorch")]
    peers = [time for name, time in times.items() if name.startswith("PyTorch")]
    return min(peers) / min(ours) if ours and peers else None
