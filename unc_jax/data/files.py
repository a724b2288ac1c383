"""Atomic writing of files, and locks of folders.

A file is written under a temporary name, synced, then renamed.
"""

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import filelock
import numpy as np

from unc_jax.errors import InputError

LOCK = ".lock"
HOLDER = ".lock-holder"  # exists while a folder is held: by which process, since when
# NumPy reads the header of an array by `ast.literal_eval`, whose recursion counter
# Python 3.11 shares between threads: parallel reads raise a SystemError now and then.
_ARRAYS = threading.Lock()
_TEMPORARY = re.compile(r"\.tmp-[0-9]+(-[0-9a-f]+)?-unc_jax-.+", re.DOTALL)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; renames it on success.

    The temporary name keeps the suffixes of `path` (writers choose formats by them)
    and starts with a dot, so that the rest of a killed run is never read as data. On an
    exception the temporary file is removed and `path` stays unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # In containers every process has the same number.
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".tmp-{mark}-unc_jax-{path.name}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        # An error while writing to an open file does not name it.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def expanded(path: str) -> Path:
    """Returns a path with ~ replaced by the home folder, if there is one."""
    with contextlib.suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def regular(path: Path) -> Path:
    """Returns the path; InputError for a pipe or device, which may never end."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: no file, but a folder, a pipe or a device")
    return path


def read_json(path: Path) -> Any:
    """Reads a JSON file; raises InputError that names it if that fails."""
    regular(path)
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        cause = " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read as JSON ({cause})") from None


def read_object(path: Path) -> dict[str, Any]:
    """Reads a JSON object; raises InputError that names the file if that fails."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold one JSON object")
    return content


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text atomically: `path` holds either the old or the new content.

    Surrogates (from file names in another encoding) are written as escapes.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON; raises ValueError for NaN, which JSON lacks."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_npz(path: Path, names: Iterable[str]) -> list[np.ndarray]:
    """Reads arrays of an .npz into memory; thread-safe, one thread reads at a time.

    Raises KeyError for an array that is missing; OSError, ValueError or
    zipfile.BadZipFile for a file that cannot be read.
    """
    with _ARRAYS, np.load(regular(path), allow_pickle=False) as file:
        return [file[name] for name in names]


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes one array as .npy, without pickle."""
    content = io.BytesIO()  # written directly, NumPy would not report a full disk
    np.save(content, array, allow_pickle=False)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def digest(paths: Iterable[Path]) -> str:
    """Returns the SHA-256 of the concatenated content of files."""
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: total)
    return total.hexdigest()


def stamp(path: Path) -> list[int]:
    """Returns size, mtime and ctime of a file; tools cannot reset the ctime."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def sweep(folder: Path) -> None:
    """Removes temporary files of killed processes; the lock of `folder` must be held.

    Other files stay. Subfolders with a lock of their own are skipped, because another
    process may be writing there.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if not Path(place, one, LOCK).exists()]
        for name in filter(_TEMPORARY.fullmatch, names):
            Path(place, name).unlink(missing_ok=True)


@contextlib.contextmanager
def hold(folder: Path, doing: str) -> Iterator[None]:
    """Locks `folder` for this process; its .lock-holder names the process and time.

    Temporary files of killed processes are removed first. The operating system releases
    the lock of a process that ends in any way. Raises InputError that names the holder
    when another process holds the lock, and if the lock file is a link or not a regular
    file, because it would be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / HOLDER
    for path in (folder / LOCK, holder):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"{path} is not a regular file; remove it")
    lock = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        known = holder.read_text(encoding="utf-8") if holder.exists() else ""
        raise InputError(
            f"{folder} is in use by {known.strip() or 'unknown process'}; wait for it, "
            "or choose another folder"
        ) from None
    with lock:
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        holder.write_text(
            f"{doing}, process {os.getpid()} on {socket.gethostname()}, {since}\n",
            encoding="utf-8",
        )
        try:
            sweep(folder)
            yield
        finally:
            holder.unlink(missing_ok=True)


@contextlib.contextmanager
def hold_for_all(folder: Path, doing: str) -> Iterator[None]:
    """Locks `folder` in the main process on behalf of all; the others wait for it.

    Raises InputError in all processes when another run holds the lock.
    """
    from unc_jax import runtime  # imported here, because file access needs no JAX

    with contextlib.ExitStack() as stack:
        with runtime.shared_errors():
            if runtime.is_main():
                stack.enter_context(hold(folder, doing))
        yield


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once the folder itself has reached the disk. Windows
    # opens no folders, and needs no sync of them.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
