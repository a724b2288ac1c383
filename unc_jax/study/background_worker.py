"""A background thread that runs tasks in order, with a limited backlog."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class BackgroundWorker:
    """A thread that runs submitted tasks in order, with at most `lag` unfinished.

    As a context manager it waits for all tasks when the block ends, also by an error.
    An exception in a task is raised by a later `submit` or at the end of the block;
    later tasks are skipped.
    """

    def __init__(self, lag: int) -> None:
        self._lag = lag
        self._pool = ThreadPoolExecutor(1)
        self._waiting: deque[Future] = deque()
        self._failed = False

    def submit(self, task: Callable[..., Any], *arguments: Any) -> None:
        """Submits a task; returns when at most `lag` tasks are unfinished."""
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

    def __enter__(self) -> "BackgroundWorker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        self._pool.shutdown()
        if kind is None:
            for one in self._waiting:
                one.result()
