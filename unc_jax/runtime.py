"""Several processes, on as many hosts, as one run: JAX's own distributed runtime.

All run the same program on the same arguments. The first one leads: it alone writes
records and speaks, the others wait for it where it prepares what all need. A process
on its own is such a run of one, so nothing here needs asking whether there are others.
"""

import contextlib
import ctypes
import hashlib
import itertools
import os
import platform
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.experimental.compilation_cache import compilation_cache

from unc_jax.errors import InputError

_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
_LONG_MS = 7 * 24 * 3600 * 1000  # a preparation may take hours
_LOOK_EVERY_S = 0.5
_FAREWELL_S = 10.0
_FAILURE, _HEARD = "unc_jax/failure", "unc_jax/heard"

_turn = itertools.count()  # keys of the store are written once
_ended = threading.Lock()  # whoever takes it says the last word of this process
_left = threading.Event()


def initialize(*, wait_s: int = 300) -> None:
    """Joins this process to the others of its run, before anything else uses JAX.

    By the variables JAX_COORDINATOR_ADDRESS (host:port of the first process),
    JAX_NUM_PROCESSES and JAX_PROCESS_ID where they are set; otherwise as JAX finds out
    by itself (Slurm, Open MPI, Cloud TPU, Kubernetes). Raises InputError when neither
    tells; when the others are not there after `wait_s` seconds, one line and exit
    code 2.
    """
    arguments = _from_environment()
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would swallow SIGTERM; training agrees on its end by itself (`all_max`).
    jax.config.update("jax_enable_preemption_service", False)
    late = threading.Timer(wait_s, _give_up, [wait_s, arguments])
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(**arguments, initialization_timeout=wait_s + 60)
    except (RuntimeError, ValueError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())[:300]
        wanted = _words(arguments) or f"set {', '.join(_VARIABLES)}"
        raise InputError(f"--distributed: {reason} ({wanted})") from None
    finally:
        late.cancel()
    threading.Thread(target=_listen, daemon=True).start()


def shutdown() -> None:
    """Waits for the others, who must do the same, and then listens to them no more."""
    barrier()
    _left.set()


def process_count() -> int:
    """Processes of the run, 1 on its own."""
    # JAX would start its devices to tell, which a run on its own may not need yet.
    return jax.process_count() if jax.distributed.is_initialized() else 1


def process_index() -> int:
    """Of this process, 0 for the one that leads."""
    return jax.process_index() if jax.distributed.is_initialized() else 0


def is_main() -> bool:
    """Whether this process writes the records."""
    return process_index() == 0


def barrier() -> None:
    """Waits until all processes are here."""
    if process_count() > 1:
        _client().wait_at_barrier(f"unc_jax/{next(_turn)}", _LONG_MS)


def broadcast(value: str, *, source: int = 0) -> str:
    """Returns the value of process `source`, on all of them; the others wait for it."""
    if process_count() == 1:
        return value
    key = f"unc_jax/{next(_turn)}"
    if process_index() == source:
        _client().key_value_set(key, value)
        return value
    return _client().blocking_key_value_get(key, _LONG_MS)


def all_gather(values: np.ndarray) -> np.ndarray:
    """The arrays of all processes, of one shape: (processes, *shape), bit by bit."""
    values = np.ascontiguousarray(values)
    if process_count() == 1:
        return values[None]
    # As bytes, because JAX would round float64.
    found = multihost_utils.process_allgather(values.reshape(-1).view(np.uint8))
    return found.view(values.dtype).reshape(process_count(), *values.shape)


def all_max(value: int) -> int:
    """The greatest of what the processes give."""
    return int(all_gather(np.array([value])).max())


def exit_all(line: str, code: int, details: str = "") -> NoReturn:
    """Ends every process of the run: `line` to standard error, exit code `code`.

    They may be anywhere, in a collective that this process will never join. When one
    of them failed before, its line is given, and not `details` of what followed.
    """
    if process_count() == 1:
        print(details + line, file=sys.stderr)
        sys.exit(code)
    try:
        _client().key_value_set(_FAILURE, f"{code} {line}")
    except RuntimeError:  # another process was first, or the first process is gone
        with contextlib.suppress(RuntimeError):
            _end(*_failure())
    sys.stderr.write(details)
    _end(line, code)


def fail(error: Exception) -> NoReturn:
    """Ends every process by an error that nobody expected; on its own, raises it."""
    if process_count() == 1:
        raise error
    line = f"error: process {process_index()} failed: {type(error).__name__}: {error}"
    exit_all(line, 1, traceback.format_exc())


def _from_environment() -> dict[str, Any]:
    given = {name: os.environ.get(name, "") for name in _VARIABLES}
    missing = [name for name, value in given.items() if not value]
    if len(missing) == len(_VARIABLES):
        return {}
    if missing:
        raise InputError(f"--distributed: {', '.join(missing)} not set beside the rest")
    address, processes, process = given.values()
    try:
        numbers = int(processes), int(process)
    except ValueError:
        raise InputError(
            f"--distributed: JAX_NUM_PROCESSES={processes!r} and "
            f"JAX_PROCESS_ID={process!r} must be whole numbers"
        ) from None
    return {
        "coordinator_address": address,
        "num_processes": numbers[0],
        "process_id": numbers[1],
    }


def _words(arguments: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arguments.items())


def _give_up(wait_s: int, arguments: dict[str, Any]) -> None:
    # JAX itself would abort the process, with a stack trace and no exception.
    line = f"error: --distributed: not all processes met within {wait_s} s"
    print(f"{line} ({_words(arguments)})", file=sys.stderr, flush=True)
    os._exit(2)


def _client() -> Any:
    # Not public in JAX 0.10, but the only way to the runtime's store and its barrier,
    # which wait for hours where a collective of the devices would time out.
    from jax._src.distributed import global_state

    return global_state.client


def _listen() -> None:
    """Ends this process when another one has failed."""
    while not _left.wait(_LOOK_EVERY_S):
        try:
            failure = _failure()
        except RuntimeError:  # there is none
            continue
        _end(*failure)


def _failure() -> tuple[str, int]:
    """Line and exit code of the process that failed; RuntimeError when none did."""
    code, _, line = _client().key_value_try_get(_FAILURE).partition(" ")
    return line, int(code)


def _end(line: str, code: int) -> NoReturn:
    with _ended:
        print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
        try:
            _bid_farewell()
        finally:
            # Not sys.exit: the main thread may hang in a collective, and JAX would wait
            # for the others at exit.
            os._exit(code)


def _bid_farewell() -> None:
    """The first process keeps the store, so it goes last."""
    deadline = time.monotonic() + _FAREWELL_S
    try:
        heard = _client().key_value_increment(_HEARD, 1)
        while is_main() and heard < process_count() and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY_S / 5)
            heard = _client().key_value_increment(_HEARD, 0)
    except RuntimeError:
        pass  # the first process is gone already


_FOLDER = "jax_compilation_cache_dir"
# Every program is kept, however small: a start has some hundred small ones, and the
# programs of a whole run take a few megabytes.
_SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    # These would put the folder's name into every key: a moved run would miss.
    "jax_persistent_cache_enable_xla_caches": "none",
}
_COMPILED = "/jax/core/compile/backend_compile_duration"
# Seconds from which on a compilation leaves memory worth returning.
_LONG = 0.5


@contextlib.contextmanager
def cache_compilations(folder: Path) -> Iterator[None]:
    """Programs compiled within are kept in folder/.cache/jax, and taken from there.

    What compiling them took of memory goes back to the system (`returning_memory`).

    JAX's own cache, keyed by program, versions and device; an entry that cannot be
    read or written costs a warning and a compilation. A cache that the user named
    (JAX_COMPILATION_CACHE_DIR) is used instead.
    """
    if getattr(jax.config, _FOLDER):
        with returning_memory():
            yield
        return
    path = folder / ".cache" / "jax" / _machine()
    changed = {_FOLDER: str(path.resolve()), **_SETTINGS}
    before = {name: getattr(jax.config, name) for name in changed}
    _configure(changed)
    try:
        with returning_memory():
            yield
    finally:
        _configure(before)


@contextlib.contextmanager
def returning_memory() -> Iterator[None]:
    """After each long compilation within, the allocator returns what it has free.

    The compiler's threads leave hundreds of megabytes in their pools of the C library,
    from which the program's own arrays never take. Where the library is not glibc
    nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)

    def after(event: str, duration_secs: float, **_) -> None:
        if trim is not None and event == _COMPILED and duration_secs > _LONG:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(after)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(after)


def _configure(settings: dict) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at the folder's name only once


def _machine() -> str:
    """A name for this kind of CPU.

    JAX's key knows a CPU only as "cpu", but its programs use the instructions of the
    one they were compiled on: a run folder carried to another must not bring them.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    words = ("model name", "flags", "Features")
    told = {line for line in lines if line.startswith(words)} or set(lines)
    content = "\n".join([platform.machine(), *sorted(told)])
    return hashlib.sha256(content.encode()).hexdigest()[:12]
