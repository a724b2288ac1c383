"""Files that are either whole or absent: written beside, synced, then renamed."""

import contextlib
import fcntl
import io
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from unc_jax import runtime
from unc_jax.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`; renames it on success.

    The temporary name keeps the suffixes of `path` (writers choose formats by them)
    and starts with a dot, so that a leftover of a killed run is never taken for data.
    On an exception the temporary file is removed and `path` stays as it was.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
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


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text so that `path` holds the old or the new content, never half."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON; NaN is a ValueError: JSON has no word for it."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes one array as .npy, without pickle."""
    content = io.BytesIO()  # to a file NumPy writes past Python, and hides a full disk
    np.save(content, array, allow_pickle=False)
    with replacing(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def sweep(folder: Path) -> None:
    """Removes what killed processes left in `folder`, whose lock must be held."""
    for path in Path(folder).rglob(".tmp-*"):
        path.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # A rename is durable only once the folder itself has reached the disk.
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def hold(folder: Path, doing: str) -> Iterator[None]:
    """Holds `folder` for this process; the lock file says who holds it and since when.

    A lock of a dead process, killed in any way, is free. Raises InputError with the
    holder's identity when another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown process"
            raise InputError(
                f"{folder} is in use by {holder}; wait for it, or choose another folder"
            ) from None
        file.seek(0)
        file.truncate()
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        file.write(
            f"{doing}, process {os.getpid()} on {socket.gethostname()}, {since}\n"
        )
        file.flush()
        yield


@contextlib.contextmanager
def hold_for_all(folder: Path, doing: str) -> Iterator[None]:
    """Of several processes the first one holds `folder`, the others wait until it does.

    Raises InputError in the first, as `hold` does.
    """
    with hold(folder, doing) if runtime.is_main() else contextlib.nullcontext():
        runtime.barrier()
        yield
