"""Errors that a user can mend, and those of the operating system, in one line each."""

import errno
from pathlib import Path


class InputError(ValueError):
    """Wrong input, said in one line: what is wrong, where, and how to mend it.

    The entry points print the message without a traceback and exit with code 2.
    """


def printable(text: object) -> str:
    """Returns text in one line that cannot steer a terminal.

    Control characters, and bytes of file names that are no UTF-8, become escapes.
    """
    kept = " ".join(str(text).split())
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode()
        for one in kept
    )


def counted(number: int, noun: str) -> str:
    """Returns a number with its noun: "0 cases", "1 case", "2 cases"."""
    return f"{number} {noun}" + "s" * (number != 1)


def line_of(error: Exception, folder: Path) -> str:
    """Returns the error in one line; for one of the system, also where and what to do.

    folder: named when an error of the system names no file.
    """
    text = printable(error)
    if not isinstance(error, OSError):
        return text
    where = printable(error.filename or folder)
    # Windows knows no quota.
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"{where}: no space left; free some and run again, what is done is kept"
    refused = error.strerror or text
    return f"{where}: {refused}; name a folder that can be read and written"
