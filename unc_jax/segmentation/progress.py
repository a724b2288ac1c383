"""Progress of long work: a line with rate and time left, a log of metrics, plots."""

import json
import sys
import time
from pathlib import Path
from typing import Any, TextIO

from matplotlib.figure import Figure

from unc_jax import runtime
from unc_jax.data.files import replacing, write_text
from unc_jax.errors import counted, printable

_LINE_EVERY_S = 10.0  # when the output is a file or a pipe
_REDRAW_EVERY_S = 0.2  # on a terminal


class Progress:
    """Progress line of one job; call it with the number of units done so far.

    total: number of units; unit: their name, e.g. "case". On a terminal one line is
    redrawn; otherwise a plain line is printed every ten seconds and at the end. Units
    `done` before this process started count towards the percentage, not the rate. Only
    the main process prints.
    """

    def __init__(
        self,
        name: str,
        total: int,
        unit: str,
        *,
        done: int = 0,
        stream: TextIO = sys.stderr,
    ) -> None:
        self._name, self._total, self._unit = name, total, unit
        self._first, self._started = done, time.monotonic()
        self._stream, self._shown = stream, 0.0

    def __call__(self, done: int, note: str = "") -> None:
        if not runtime.is_main():
            return
        now = time.monotonic()
        terminal = self._stream.isatty()
        wait = _REDRAW_EVERY_S if terminal else _LINE_EVERY_S
        finished = done >= self._total
        if not finished and now - self._shown < wait:
            return
        self._shown = now
        line = self._line(done, now, note)
        end = "\n" if finished or not terminal else ""
        self._stream.write(f"\r\x1b[2K{line}{end}" if terminal else line + "\n")
        self._stream.flush()

    def restart_clock(self, done: int) -> None:
        """Measures the rate from now on, so that it does not include compilation."""
        self._first, self._started = done, time.monotonic()

    def _line(self, done: int, now: float, note: str) -> str:
        share = done / max(self._total, 1)
        line = f"{self._name} {share:4.0%} {done}/{counted(self._total, self._unit)}"
        elapsed, new = now - self._started, done - self._first
        if new > 0 and elapsed > 0:
            rate = new / elapsed
            speed = (
                f"{rate:.1f} {self._unit}s/s" if rate >= 1 else f"{1 / rate:.1f} s each"
            )
            line += f", {speed}, {duration((self._total - done) / rate)} left"
        return f"{line}, {printable(note)}" if note else line


def duration(seconds: float) -> str:
    """Formats a duration as "45 s", "12 min" or "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return (
        f"{minutes} min"
        if minutes < 90
        else f"{minutes // 60} h {minutes % 60:02d} min"
    )


class MetricLog:
    """The file metrics.jsonl: one JSON object per line, appended at once."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, step: int, **values: Any) -> None:
        """Appends one line; `step` counts completed updates."""
        record = {"step": step, **values}
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record, allow_nan=False) + "\n")

    def read(self) -> list[dict[str, Any]]:
        """Returns the records of all complete lines; a truncated line is skipped."""
        if not self._path.exists():
            return []
        records = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            try:
                records.append(json.loads(line))
            except json.JSONDecodeError:
                continue
        return records

    def has(self, step: int, name: str) -> bool:
        """Returns whether `name` was logged at `step`."""
        return any(r["step"] == step and name in r for r in self.read())

    def rewind(self, step: int) -> None:
        """Removes the records after `step`, which a resumed run logs again."""
        kept = [record for record in self.read() if record["step"] <= step]
        text = "".join(json.dumps(record) + "\n" for record in kept)
        if self._path.exists() and self._path.read_text(encoding="utf-8") != text:
            write_text(self._path, text)


def plot_curves(records: list[dict[str, Any]], path: Path) -> None:
    """Draws training loss and validation Dice over steps, as progress.png."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    left = figure.add_subplot()
    losses = [(r["step"], r["loss"]) for r in records if "loss" in r]
    dices = [
        (r["step"], r["validation_dice"]) for r in records if "validation_dice" in r
    ]
    lines = []
    if losses:
        lines += left.plot(*zip(*losses, strict=True), color="tab:blue", label="loss")
    left.set(xlabel="step", ylabel="training loss", xlim=(0, None))
    right = left.twinx()
    if dices:
        lines += right.plot(
            *zip(*dices, strict=True), "o-", color="tab:orange", label="validation Dice"
        )
    right.set(ylabel="mean validation Dice", ylim=(0, 1))
    left.legend(handles=lines, loc="center right")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
