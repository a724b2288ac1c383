"""Work that a thread does behind its caller, in order and never far behind."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Behind:
    """Thread that does one task after the other, at most `lag` behind its caller.

    A context: leaving it waits for all tasks, whatever ends the block. The error of a
    task is raised by a later `submit` or at the end; tasks behind it are not done.
    """

    def __init__(self, lag: int) -> None:
        self._lag = lag
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future] = deque()
        self._failed = False

    def submit(self, task: Callable[..., Any], *arguments: Any) -> None:
        """Takes on a task; returns once no more than `lag` of them are unfinished."""
        self._waiting.append(self._pool.submit(self._do, task, *arguments))
        while len(self._waiting) > self._lag or self._waiting[0].done():
            self._waiting.popleft().result()
            if not self._waiting:
                return

    def _do(self, task: Callable[..., Any], *arguments: Any) -> None:
        if self._failed:
            return
        try:
            task(*arguments)
        except BaseException:
            self._failed = True
            raise

    def __enter__(self) -> "Behind":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        self._pool.shutdown()
        if kind is None:
            for one in self._waiting:
                one.result()
