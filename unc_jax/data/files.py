"""Files that are either whole or absent, and locks of folders.

A file is written under a temporary name, synced, then renamed.
"""

import contextlib
import hashlib
import io
import json
import os
import re
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
HOLDER = ".lock-holder"  # while a folder is held: by whom, since when
# NumPy reads the header of an array by `ast.literal_eval`; Python 3.11 counts the depth
# of two threads' together, and raises a SystemError now and then.
_ARRAYS = threading.Lock()
_TEMPORARY = re.compile(r"\.tmp-[0-9]+-unc_jax-.+", re.DOTALL)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; renames it on success.

    The temporary name keeps the suffixes of `path` (writers choose formats by them)
    and starts with a dot, so that a leftover of a killed run is never taken for data.
    On an exception the temporary file is removed and `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-unc_jax-{path.name}")
    temporary.unlink(missing_ok=True)  # perhaps a link to elsewhere
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        # Writing to an open file does not say to which.
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def regular(path: Path) -> Path:
    """Returns the path; InputError for a pipe or device: its content may never end."""
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: no file, but a folder, a pipe or a device")
    return path


def read_json(path: Path) -> Any:
    """Reads a JSON file; OSError or ValueError for anything else."""
    return json.loads(regular(path).read_text(encoding="utf-8-sig"))


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text so that `path` holds the old or the new content, never half.

    Characters that are none (of file names in another encoding) are written as escapes.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON; NaN is a ValueError: JSON has no such number."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_npz(path: Path, names: Iterable[str]) -> list[np.ndarray]:
    """Reads arrays of an .npz, whole; one thread at a time, any may call.

    Raises KeyError for an array that is missing; OSError, ValueError or
    zipfile.BadZipFile for a file that cannot be read.
    """
    with _ARRAYS, np.load(regular(path), allow_pickle=False) as file:
        return [file[name] for name in names]


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes one array as .npy, without pickle."""
    content = io.BytesIO()  # to a file NumPy writes past Python, and hides a full disk
    np.save(content, array, allow_pickle=False)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def digest(paths: Iterable[Path]) -> str:
    """Returns the SHA-256 of the content of files, one behind the other."""
    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: total)
    return total.hexdigest()


def stamp(path: Path) -> list[int]:
    """Returns size and times of change of a file; the last one no tool can set back."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def sweep(folder: Path) -> None:
    """Removes what killed processes left in `folder`, whose lock must be held.

    Files of other names stay, and so do folders below it that have a lock of their own:
    another process may be writing there.
    """
    for place, folders, names in os.walk(folder):
        folders[:] = [one for one in folders if not Path(place, one, LOCK).exists()]
        for name in filter(_TEMPORARY.fullmatch, names):
            Path(place, name).unlink(missing_ok=True)


@contextlib.contextmanager
def hold(folder: Path, doing: str) -> Iterator[None]:
    """Holds `folder` for this process; its .lock-holder says who holds it since when.

    What killed processes left half-written there is removed first.
    The system frees the lock of a dead process, however it died. Raises InputError
    with the holder's identity when another process holds it, and for a lock that is a
    link or no file: it would be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    holder = folder / HOLDER
    for path in (folder / LOCK, holder):
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise InputError(f"{path} is no file of its own; remove it")
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
    """Holds `folder` by the main process for all of the run; the others wait for it.

    Raises InputError in all of them when another run holds it.
    """
    from unc_jax import runtime  # here: reading and writing files needs no JAX

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
