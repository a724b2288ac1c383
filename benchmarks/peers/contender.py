"""A contender is a process that takes tasks, one JSON line each, and times them.

Processes live through a whole benchmark, so that contenders can take turns on the same
machine within seconds of each other, each with a peak of memory of its own.
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# From the arguments of a task to a function that does it once and returns None or JSON.
Task = Callable[..., Callable[[], Any]]

_ROOT = Path(__file__).parents[2]


def serve(tasks: dict[str, Task]) -> None:
    """Answers lines of standard input until it ends.

    A task is set up, and done once to warm up, when its arguments are first seen.
    """
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries may print what they like
    ready: dict[str, Callable[[], Any]] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            if line not in ready:
                ready.clear()  # what a former task held is not this one's memory
                ready[line] = tasks[asked["task"]](**asked["arguments"])
                ready[line]()
            started = time.perf_counter()
            answer = ready[line]()
            reply = {"seconds": time.perf_counter() - started, "answer": answer}
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        reply["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(reply), file=answers, flush=True)


class Contender:
    """The other end of `serve`; a fresh process each."""

    def __init__(self, python: str, module: str) -> None:
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=_ROOT,
        )

    def do(self, task: str, **arguments: Any) -> dict[str, Any]:
        """seconds, answer and peak_mb of a task done once more, or an error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = json.dumps({"task": task, "arguments": arguments})
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        reply = self._process.stdout.readline()
        return json.loads(reply) if reply else {"error": "the process died"}

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()
