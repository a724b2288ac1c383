"""One process per folder: a lock that the system lets go when its holder dies."""

import contextlib
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from unc_jax import runtime
from unc_jax.errors import InputError


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
    with hold(folder, doing) if runtime.leads() else contextlib.nullcontext():
        runtime.meet()
        yield
