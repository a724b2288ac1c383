"""Work on many cases by several processes or threads: results in order, few at once."""

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

# Of all cases together, for each process: some ten seconds of drawing or preparing,
# against one or two for the start of a process.
_VOXELS_EACH = 1 << 25
# A process that draws or prepares 256^3 voxels has 0.47 GB at its peak.
_BYTES_PER_VOXEL = 32


def map_cases(
    function: Callable[[Item], Result], cases: Sequence[Item], *, voxels: int
) -> Iterator[Result]:
    """Yields function(case) of each case, in order, by processes where they pay.

    voxels: of the largest case. There are as many processes as cores, fewer where
    memory or the work is too small for so many; a single one works here, as `map`
    does. `function` and the cases must be of a kind that pickles. What a call raises is
    raised here, and the cases behind it are left out.
    Raises InputError when a process was ended from outside.
    """
    processes = min(
        cores(),
        len(cases),
        len(cases) * voxels // _VOXELS_EACH,
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
            f"one of {processes} processes was ended from outside, perhaps for want of "
            "memory; run again, what is finished is kept"
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
    """Yields function(item) of each item, in order; the pool is `ahead` items ahead.

    Unlike `Executor.map` it does not hold the results of all.
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
    """Leaves interrupts to the parent process, and ends this one when it is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def leave() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=leave, daemon=True).start()
