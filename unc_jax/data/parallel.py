"""Parallel work on many cases: results in order, few of them in memory."""

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from typing import TypeVar

import psutil

from unc_jax.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

READ_NS = 100  # to read and check or prepare one voxel on one core, roughly
_SECONDS_EACH = 5  # least work of a process, whose start takes one or two
# A process that synthesises or prepares 256^3 voxels needs at most 0.47 GB.
_BYTES_PER_VOXEL = 32


def map_cases(
    function: Callable[[Item], Result],
    cases: Sequence[Item],
    *,
    voxels: int,
    voxel_ns: int,
) -> Iterator[Result]:
    """Yields function(case) for each case, in order, computed by several processes.

    voxels: of the largest case; voxel_ns: time that one takes on one core, roughly, ns.
    The number of processes is that of the cores, reduced if memory or work is too
    small; with one process the work is done in this process.
    `function` and the cases must be picklable. An exception of a call is raised here,
    and later cases are skipped. Raises InputError when a process was killed from
    outside.
    """
    processes = min(
        cores(),
        len(cases),
        len(cases) * voxels * voxel_ns // (_SECONDS_EACH * 10**9),
        psutil.virtual_memory().available // max(voxels * _BYTES_PER_VOXEL, 1),
    )
    if processes < 2:
        yield from map(function, cases)
        return
    # A fork would copy the locks that JAX's threads hold.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_begin)
    try:
        yield from in_order(pool, function, cases, ahead=2 * processes)
    except BrokenProcessPool:
        raise InputError(
            f"one of {processes} processes was killed from outside, perhaps for lack "
            "of memory; run again, finished cases are kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def in_order(
    pool: Executor,
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    ahead: int,
) -> Iterator[Result]:
    """Yields function(item) for each item, in order; works up to `ahead` items ahead.

    Unlike `Executor.map` it does not keep all results in memory.
    """
    waiting: deque[Future[Result]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # on Linux: those that this process may use
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _begin() -> None:
    """Ignores interrupts, and ends this process when its parent process has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()
