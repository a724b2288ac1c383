"""Contenders take turns at one task, so that what else the machine does hits all."""

import statistics
import sys
from typing import IO, Any, NamedTuple

from benchmarks.peers.contender import Contender
from benchmarks.peers.table import Row

_MODULES = {"ours": "benchmarks.peers.ours", "peer": "benchmarks.peers.pytorch"}


class Setting(NamedTuple):
    """Where a benchmark runs.

    weights: file that ours writes and the peer loads. modules: of the tasks of "ours"
    and of "peer". until, log: see `Contender`.
    """

    torch_python: str
    repeat: int
    weights: str
    modules: dict[str, str] = _MODULES
    until: float | None = None
    log: IO[str] | None = None

    def fresh(self, side: str, **environment: str) -> Contender:
        """A process of its own; `side` is "ours" or "peer"."""
        python = sys.executable if side == "ours" else self.torch_python
        return Contender(
            python, self.modules[side], until=self.until, log=self.log, **environment
        )

    def once(self, side: str, task: str, **arguments: Any) -> Row:
        """A task done by a process of its own."""
        contender = self.fresh(side)
        reply = contender.do(task, **arguments)
        contender.close()
        if "error" in reply:
            raise RuntimeError(f"{side}, {task}: {reply['error']}")
        return reply


def take_turns(
    setting: Setting,
    task: str,
    *,
    ours: dict[str, Row],
    peer: dict[str, Row],
    most: int | None = None,
) -> dict[str, Row]:
    """Median seconds of every form, its peak memory and its last answer.

    A process of its own does each form, and ends: what it held is nobody's memory. A
    form that failed is not asked again; what it did before counts.

    ours, peer: arguments of the task by the form's name. most: repeats at most.
    """
    sides = [
        (setting.fresh(side), form, fields)
        for side, forms in (("ours", ours), ("peer", peer))
        for form, fields in forms.items()
    ]
    times: dict[str, list[float]] = {form: [] for _, form, _ in sides}
    replies: dict[str, Row] = {}
    for _ in range(min(setting.repeat, most or setting.repeat)):
        for contender, form, fields in sides:
            before = replies.get(form, {})
            if "error" in before:
                continue
            reply = contender.do(task, **fields)
            replies[form] = {**before, **reply}
            if "seconds" in reply:
                times[form].append(reply["seconds"])
    for contender, _, _ in sides:
        contender.close()
    for form, seconds in times.items():
        if seconds:
            replies[form]["seconds"] = statistics.median(seconds)
    return replies
