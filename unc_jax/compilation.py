"""Compiling leaves programs on disk, for the next start, and no memory behind."""

import contextlib
import ctypes
import hashlib
import platform
from collections.abc import Iterator
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

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
def kept_in(folder: Path) -> Iterator[None]:
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
