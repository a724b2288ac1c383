"""Several processes as one run.

All processes run the same program with the same arguments and communicate by JAX's
collectives, which they must call in the same order. Only process 0, the main one,
writes records and prints. With a single process the collectives return at once, so
that callers need no special case.

A process that fails or is killed ends the others: at once if they wait for it in a CPU
collective, otherwise after `HEARTBEAT_S` seconds by JAX's heartbeats.
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
# The other processes wait for the main one while it prepares the data, perhaps for
# hours; by default, CPU collectives time out after half an hour.
_PATIENCE = "--xla_cpu_collective_timeout_seconds=604800"
# The main process hosts the coordination service, so it exits last: the others have
# this long to print the error that all of them raised.
_GRACE_S = 3.0
# Words in the errors that a collective raises when another process has ended; the
# types of these errors differ.
_CONNECTION = ("Gloo ", "NCCL ", "coordination service")


def initialize(*, wait_s: int = 300) -> None:
    """Connects this process to the others of its run, before anything else uses JAX.

    Uses the variables JAX_COORDINATOR_ADDRESS (host:port of process 0),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID if they are set; otherwise JAX detects the
    cluster (Slurm, Open MPI, Cloud TPU, Kubernetes). Raises InputError when neither
    works. If the other processes have not connected after `wait_s` seconds, prints one
    line and exits with code 2.
    """
    arguments = _from_environment()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # The service would catch SIGTERM; training stops all processes itself (`all_max`).
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
    """Returns the number of processes of the run, 1 without --distributed."""
    # jax.process_count() initialises the devices, which may not be needed yet.
    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Returns the index of this process, 0 for the main one."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_main() -> bool:
    """Returns whether this process writes the records."""
    return process_index() == 0


def barrier() -> None:
    """Waits until all processes have called this function."""
    if process_count() > 1:
        multihost_utils.sync_global_devices("unc_jax")


def broadcast(value: Any) -> Any:
    """Returns the JSON value of the main process; values of the others are ignored."""
    return all_gather(value if is_main() else None)[0]


def all_gather(value: Any) -> list[Any]:
    """Returns the JSON values of all processes, in the order of their indices."""
    if process_count() == 1:
        return [value]
    text = json.dumps(value, default=lambda number: number.item()).encode()
    lengths = multihost_utils.process_allgather(np.int32(len(text)))
    # Padded to a power of two, because every array size compiles another program.
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

    All processes must enter and leave the block, and code in it must not wait for
    another process.
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
    """Calls `function` on the main process and returns its JSON value on all."""
    value = None
    with shared_errors():
        if is_main():
            value = function()
    return broadcast(value)


def exit_all(line: str, code: int) -> NoReturn:
    """Prints `line` to standard error and exits with `code`, which ends the run."""
    print(line, file=sys.stderr, flush=True)
    if process_count() == 1:
        sys.exit(code)
    # Not sys.exit: JAX would wait for the other processes, which may wait for this one.
    leave(code)


def leave(code: int) -> NoReturn:
    """Flushes the output and ends this process at once, without stopping its threads.

    Python's own shutdown would crash in threads that compile or run a JAX program.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a pipe that its reader closed
            stream.flush()
    if process_count() > 1 and is_main():
        time.sleep(_GRACE_S)
    os._exit(code)


def fail(error: Exception) -> NoReturn:
    """Ends the run after an unexpected error; with a single process, raises it."""
    if process_count() == 1:
        raise error
    reason = " ".join(str(error).split())
    if any(word in reason for word in _CONNECTION):
        exit_all(
            f"error: process {process_index()} lost the connection to another process "
            f"of the run; see the output of that process ({reason[:120]})",
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
        raise InputError(
            f"--distributed: {', '.join(missing)} not set, but the other variables are"
        )
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
    # JAX itself would abort the process with a stack trace instead of an exception.
    line = f"error: --distributed: not all processes connected within {wait_s} s"
    print(f"{line} ({arguments})", file=sys.stderr, flush=True)
    os._exit(2)
