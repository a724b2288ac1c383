"""Files that a command did not read, grouped by reason."""

import sys
from collections import defaultdict
from collections.abc import Iterable

from unc_jax.data.dicom_series import PassedOver
from unc_jax.errors import printable

_SHOWN = 3  # files of one reason that a message names
_LINES = 12  # of the console


def reasons(passed: Iterable[PassedOver]) -> dict[str, list[str]]:
    """Returns the files by the reason for which they were passed over, in order."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, reason in passed:
        found[printable(reason)].append(printable(path))
    return dict(found)


def lines(passed: Iterable[PassedOver]) -> list[str]:
    """Returns a line for each reason: the number of files, and the first of them."""
    return [
        f"passed over {len(paths)} ({reason}): {', '.join(paths[:_SHOWN])}"
        + (", ..." if paths[_SHOWN:] else "")
        for reason, paths in reasons(passed).items()
    ]


def say(passed: Iterable[PassedOver]) -> None:
    """Prints the lines to standard error, at most _LINES of them."""
    told = lines(passed)
    shown = told if len(told) <= _LINES else told[: _LINES - 1]
    for line in shown:
        print(line, file=sys.stderr)
    if rest := len(told) - len(shown):
        print(f"passed over for {rest} more reasons: run.json", file=sys.stderr)
