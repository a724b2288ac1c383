"""Contenders take turns at one task, so that what else the machine does hits all."""

import statistics
import sys
from typing import Any, NamedTuple

from benchmarks.peers.contender import Contender
from benchmarks.peers.table import Row

_MODULES = {"ours": "benchmarks.peers.ours", "peer": "benchmarks.peers.pytorch"}


class Setting(NamedTuple):
    """Where a benchmark runs."""

    torch_python: str
    repeat: int
    weights: str  # file that ours writes and the peer loads

    def fresh(self, side: str, **environment: str) -> Contender:
        """Starts a process of its own; `side` is "ours" or "peer"."""
        python = sys.executable if side == "ours" else self.torch_python
        return Contender(python, _MODULES[side], log=None, **environment)

    def once(self, side: str, task: str, **arguments: Any) -> Row:
        """Runs a task in a process of its own."""
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
    """Returns median seconds, peak memory and last answer of every form.

    A process of its own does each form, and ends: what it held is nobody's memory. A
    form that failed is not asked again; what it did before counts.

    ours, peer: arguments of the task by the form's name. most: repeats at most.
    """
    contenders = {form: setting.fresh("ours") for form in ours}
    contenders |= {form: setting.fresh("peer") for form in peer}
    repeat = min(setting.repeat, most or setting.repeat)
    replies = turns_of(contenders, task, {**ours, **peer}, repeat)
    for contender in contenders.values():
        contender.close()
    return replies


def turns_of(
    contenders: dict[str, Contender], task: str, fields: dict[str, Row], repeat: int
) -> dict[str, Row]:
    """Runs `take_turns` of living contenders; fields: arguments by the form's name."""
    times: dict[str, list[float]] = {form: [] for form in fields}
    replies: dict[str, Row] = {}
    for _ in range(repeat):
        for form, arguments in fields.items():
            before = replies.get(form, {})
            if "error" in before:
                continue
            reply = contenders[form].do(task, **arguments)
            replies[form] = {**before, **reply}
            if "seconds" in reply:
                times[form].append(reply["seconds"])
    for form, seconds in times.items():
        if seconds:
            replies[form]["seconds"] = statistics.median(seconds)
    return replies
