"""Compiled programs cached on disk, and the compiler's free memory released."""

import contextlib
import ctypes
import hashlib
import os
import platform
import secrets
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

_COMPILED = "/jax/core/compile/backend_compile_duration"
_LONG_S = 0.5  # after compilations longer than this, free memory is returned
_ROOM = 100e6  # bytes that must be free on disk for a cache
_FOLDER = "jax_compilation_cache_dir"
# Every program is cached, however small: a start compiles about a hundred small ones,
# and the programs of a whole run take a few megabytes.
_SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
    # XLA's caches would put the folder's name into every key: a moved run would miss.
    "jax_persistent_cache_enable_xla_caches": "none",
}


@contextlib.contextmanager
def cache_compilations(folder: Path) -> Iterator[None]:
    """Caches the programs that its `with` block compiles in folder/.cache/jax.

    This is JAX's own cache, keyed by program, versions and device; an entry that
    cannot be read or written (a full disk) is compiled instead. If the user set
    JAX_COMPILATION_CACHE_DIR, that cache is used. Memory: see `returning_memory`.

    Cached programs are machine code. Programs in a folder that was copied from another
    account are never run, because the path of the cache is derived from a secret of
    this account. On a nearly full disk nothing is cached, to leave room for results.
    """
    changed, secret = {}, _secret()
    path = folder / ".cache" / "jax" / _digest(_cpu() + secret)[:12]
    fit = not any(one.is_symlink() for one in (path, *path.parents[:2]))
    fit &= shutil.disk_usage(folder).free > _ROOM
    if secret and fit and not getattr(jax.config, _FOLDER):
        changed = {_FOLDER: str(path.resolve()), **_SETTINGS}
    before = {name: getattr(jax.config, name) for name in changed}
    _configure(changed)
    try:
        with returning_memory(), warnings.catch_warnings():
            words = "Error (reading|writing) persistent compilation cache entry"
            warnings.filterwarnings("ignore", words)
            yield
    finally:
        _configure(before)


@contextlib.contextmanager
def returning_memory() -> Iterator[None]:
    """Returns free memory to Linux after each long compilation in its `with` block.

    The compiler's threads leave hundreds of megabytes in glibc's per-thread arenas,
    which arrays of the program do not use: without this the peak memory of sampling
    128x128x128 voxels with 32 features is 1087 MB instead of 843.
    """
    linux = sys.platform == "linux"
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if linux else None

    def after(event: str, duration_secs: float, **_) -> None:
        if trim is not None and event == _COMPILED and duration_secs > _LONG_S:
            trim(0)

    jax.monitoring.register_event_duration_secs_listener(after)
    try:
        yield
    finally:
        jax.monitoring.unregister_event_duration_listener(after)


def _configure(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    if settings:
        compilation_cache.reset_cache()  # JAX reads the folder's name only once


def _secret() -> str:
    """Returns a random secret stored in the user's cache folder; "" if impossible."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        path = Path(home, "unc_jax", "secret")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError), open(path, "x") as file:
            path.chmod(0o600)
            file.write(secrets.token_hex(16))
        return path.read_text()
    except (OSError, RuntimeError):  # RuntimeError: an account without a home
        return ""


def _cpu() -> str:
    """Returns a description that distinguishes this CPU model from others.

    JAX's cache key contains only "cpu", but programs use the instruction set of the CPU
    they were compiled on; another CPU must not load them from a copied run folder.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = [platform.processor()]
    words = ("model name", "flags", "Features")
    told = {line for line in lines if line.startswith(words)} or set(lines)
    return "\n".join([platform.machine(), *sorted(told)])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
