"""What a user can mend: wrong input, and what the system refuses, in one line."""

import errno
from pathlib import Path


class InputError(ValueError):
    """Wrong input, said in one line: what is wrong, where, and how to mend it.

    The entry points print the message without a traceback and exit with code 2.
    """


def words_of_system(error: OSError, folder: Path) -> str:
    """What the system refused, where, and what to do about it, in one line.

    folder: named when the error itself names no file.
    """
    where = error.filename or folder
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{where}: no space left; free some and run again, what is done is kept"
    refused = error.strerror or " ".join(str(error).split())
    return f"{where}: {refused}; name a folder that can be read and written"
