"""One-line messages of errors that a user can correct, and of the operating system."""

import errno
from pathlib import Path


class InputError(ValueError):
    """Wrong input. The message is one line: what is wrong, where, how to correct it.

    The commands print the message without a traceback and exit with code 2.
    """


class NoUsableCase(InputError):
    """No case of an evaluation could be segmented."""


def printable(text: object) -> str:
    """Returns text in one line without control characters for the terminal.

    Unprintable characters, and bytes of file names that are not UTF-8, are escaped.
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
    """Returns an error in one line; of an OSError also the path and what to do.

    folder: path that the line names when an OSError has no file name.
    """
    text = printable(error)
    if not isinstance(error, OSError):
        return text
    where = printable(error.filename or folder)
    # Windows has no EDQUOT.
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"{where}: no space left; free some and run again, finished work is kept"
    refused = error.strerror or text
    return f"{where}: {refused}; name a folder that can be read and written"
