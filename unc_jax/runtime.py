"""Several processes as one run.

All processes run the same program on the same arguments and speak through JAX's own
collectives, in the same order. Process 0 is the main one: it alone writes records and
prints. A process on its own is a run of one, so callers need no case of their own.

A process that fails or is killed ends the others: at once where they wait for it in a
collective of the CPU, else after `HEARTBEAT_S` seconds by JAX's heartbeats.
"""

import contextlib
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from unc_jax.errors import InputError, line_of

HEARTBEAT_S = 60
_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# A preparation may take hours, while the others wait for the main process; the
# collectives of the CPU would give up after half an hour.
_PATIENCE = "--xla_cpu_collective_timeout_seconds=604800"
# The main process serves the heartbeats of all, so it leaves last: the others have this
# long to print the error that all of them raised.
_GRACE_S = 3.0
# Words of the errors that a collective raises when another process is gone; their
# types differ.
_CONNECTION = ("Gloo ", "NCCL ", "coordination service")


def initialize(*, wait_s: int = 300) -> None:
    """Connects this process to the others of its run, before anything else uses JAX.

    By the variables JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID where they are set; otherwise as JAX finds out
    by itself (Slurm, Open MPI, Cloud TPU, Kubernetes). Raises InputError when neither
    tells; when the others are not there after `wait_s` seconds, one line and exit
    code 2.
    """
    arguments = _from_environment()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would swallow SIGTERM; training agrees on its end by itself (`all_max`).
    jax.config.update("jax_enable_preemption_service", False)
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_PATIENCE}".strip()
    too_late = threading.Timer(wait_s, _give_up, [wait_s, arguments])
    too_late.daemon = True
    too_late.start()
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=wait_s + 60,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        wanted = arguments or f"set {', '.join(_VARIABLES)}"
        raise InputError(f"--distributed: {reason} ({wanted})") from None
    finally:
        too_late.cancel()
    barrier()


def process_count() -> int:
    """Returns the number of processes of the run, 1 for a process on its own."""
    # Asking JAX starts its devices, which a run on its own may not need yet.
    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Returns the index of this process, 0 for the main one."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_main() -> bool:
    """Returns whether this process writes the records."""
    return process_index() == 0


def barrier() -> None:
    """Waits until all processes are here."""
    if process_count() > 1:
        multihost_utils.sync_global_devices("unc_jax")


def broadcast(value: Any = None, *, source: int = 0) -> Any:
    """Returns the JSON value of process `source`; what the others give is ignored."""
    return all_gather(value if process_index() == source else None)[source]


def all_gather(value: Any) -> list[Any]:
    """Returns the JSON values of all processes, in the order of their indices."""
    if process_count() == 1:
        return [value]
    text = json.dumps(value, default=lambda number: number.item()).encode()
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    # A power of two, because every size of array compiles a program of its own.
    padded = np.zeros(1 << int(lengths.max()).bit_length(), np.uint8)
    padded[: len(text)] = np.frombuffer(text, np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [
        json.loads(row[:length].tobytes())
        for row, length in zip(rows, lengths, strict=True)
    ]


def all_max(value: int) -> int:
    """Returns the greatest of the processes' values."""
    if process_count() == 1:
        return int(value)
    return int(multihost_utils.process_allgather(np.int32(value)).max())


@contextlib.contextmanager
def shared_errors() -> Iterator[None]:
    """Raises an InputError or OSError of one process on all of them, as one line.

    All must enter and leave the block, and nothing in it may wait for another process.
    """
    own: Exception | None = None
    try:
        yield
    except (InputError, OSError) as error:
        if process_count() == 1:
            raise
        own = error
    if process_count() == 1:
        return
    lines = all_gather(line_of(own, Path()) if own else "")
    if own is not None:
        raise own
    for line in filter(None, lines):
        raise InputError(line)


def on_main(function: Callable[[], Any]) -> Any:
    """Returns on all processes the JSON value of `function`, called by the main one."""
    value = None
    with shared_errors():
        if is_main():
            value = function()
    return broadcast(value)


def exit_all(line: str, code: int) -> NoReturn:
    """Ends this process, and thereby the run: `line` to standard error, exit `code`."""
    print(line, file=sys.stderr, flush=True)
    if process_count() == 1:
        sys.exit(code)
    # Not sys.exit: JAX would wait for the others, which may wait for this process.
    leave(code)


def leave(code: int) -> NoReturn:
    """Ends this process at once, with what it printed, whatever its threads are doing.

    Python's own end would crash in those that compile or run a program of JAX.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a pipe that its reader closed
            stream.flush()
    if process_count() > 1 and is_main():
        time.sleep(_GRACE_S)
    os._exit(code)


def fail(error: Exception) -> NoReturn:
    """Ends the run by an error that nobody expected; on its own, raises it."""
    if process_count() == 1:
        raise error
    reason = " ".join(str(error).split())
    if any(word in reason for word in _CONNECTION):
        exit_all(
            f"error: process {process_index()} lost another process of the run; see "
            f"what that one printed ({reason[:120]})",
            1,
        )
    traceback.print_exception(error)
    exit_all(
        f"error: process {process_index()} failed: {type(error).__name__}: {reason}", 1
    )


def _from_environment() -> dict[str, Any]:
    given = {name: os.environ.get(name, "") for name in _VARIABLES}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(_VARIABLES):
        return {}
    if missing:
        raise InputError(f"--distributed: {', '.join(missing)} not set beside the rest")
    address, count, index = given.values()
    if not (count.isdecimal() and index.isdecimal()):
        raise InputError(
            f"--distributed: JAX_NUM_PROCESSES={count!r} and "
            f"JAX_PROCESS_ID={index!r} must be whole numbers"
        )
    return {
        "coordinator_address": address,
        "num_processes": int(count),
        "process_id": int(index),
    }


def _give_up(wait_s: int, arguments: dict[str, Any]) -> None:
    # JAX itself would abort the process, with a stack trace and no exception.
    line = f"error: --distributed: not all processes met within {wait_s} s"
    print(f"{line} ({arguments})", file=sys.stderr, flush=True)
    os._exit(2)
