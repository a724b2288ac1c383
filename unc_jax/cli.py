"""Command lines of all commands: shared flags, one-line errors, exit codes.

Exit codes: 0 done, 1 error in the program (with a traceback), 2 wrong input,
3 training diverged, 4 some cases failed, 130 interrupted, 141 output closed by its
reader, 143 stopped by SIGTERM.
"""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import logging

from unc_jax import runtime
from unc_jax.data.label_names import LARGEST
from unc_jax.errors import InputError, line_of

USER_ERROR, DIVERGED, SOME_FAILED, INTERRUPTED, OUTPUT_CLOSED = 2, 3, 4, 130, 141
_KEPT = "interrupted; finished cases are kept"
BEGINS_ANEW = "interrupted; run again, which starts over"


class Parser(argparse.ArgumentParser):
    """Parser of one command: adds --debug and an example, prints errors in one line."""

    def __init__(self, module: str, description: str, *, example: str) -> None:
        """Builds the parser of `python -m MODULE`.

        --help shows `description` with its line breaks, and an example: MODULE with the
        flags `example`.
        """
        super().__init__(
            prog=f"python -m {module}",
            description=description,
            epilog=f"example:\n  python -m {module} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        self.add_argument(
            "--debug", action="store_true", help="show progress notes and tracebacks"
        )

    def add_output(self, help: str = "folder to write") -> None:
        """Adds --output, a required path."""
        self.add_argument(
            "--output", type=_output, required=True, metavar="DIR", help=help
        )

    def error(self, message: str) -> NoReturn:
        """Prints an error in the flags in one line and exits with code 2."""
        print(f"error: {message}; --help lists the flags", file=sys.stderr)
        sys.exit(USER_ERROR)


def _output(text: str) -> Path:
    # Tables and reports of all commands have the same names.
    if Path(text, "config.json").is_file():
        raise argparse.ArgumentTypeError(
            f"{text} is the folder of a run, whose cases.csv and report.html would be "
            "overwritten; name another"
        )
    return Path(text)


def labels(text: str) -> tuple[tuple[int | str, ...], ...]:
    """Parses --label, e.g. "3,liver+tumour": a tuple of numbers or names per structure.

    Raises ArgumentTypeError for an empty part, and for numbers outside 1 ... 32767.
    """
    found = tuple(
        tuple(_number(part) if part.isdecimal() else part for part in parts)
        for parts in ([p.strip() for p in one.split("+")] for one in text.split(","))
    )
    if any("" in one or 0 in one for one in found):
        raise argparse.ArgumentTypeError(
            f"{text!r}: labels are numbers from 1 to {LARGEST}, or names"
        )
    return found


def _number(text: str) -> int:
    """Returns the label as an integer; 0, which is not a label, if it is too large."""
    short = text.lstrip("0")[: len(str(LARGEST)) + 1] or "0"
    return int(short) if int(short) <= LARGEST else 0


def run_command(
    function: Callable[[argparse.Namespace], int | None],
    parser: Parser,
    argv: Sequence[str] | None = None,
    *,
    interrupted: str = _KEPT,
) -> NoReturn:
    """Parses the flags, calls `function` with them and exits with its exit code.

    argv: arguments; None reads the command line. A result of None is exit code 0.
    interrupted: message when the user stops the command.
    """
    arguments = parser.parse_args(argv)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO if arguments.debug else logging.ERROR)
    output = getattr(arguments, "output", None)
    run_guarded(
        lambda: function(arguments),
        debug=arguments.debug,
        output=output,
        interrupted=interrupted,
    )


def run_guarded(
    function: Callable[[], int | None],
    *,
    debug: bool,
    output: Path | None = None,
    interrupted: str = _KEPT,
) -> NoReturn:
    """Exits with the code that `function` returns, or with an error in one line.

    InputError, OSError and FloatingPointError, which a user can correct, are printed
    in one line; other exceptions keep their traceback. A command ended by a signal
    exits by `runtime.leave`, without Python's own shutdown.

    Args:
      debug: raise such an error with its traceback instead.
      output: folder that the message names when an OSError names no file.
      interrupted: message when the user stops the command.
    """
    try:
        code = function() or 0
        sys.stdout.flush()  # so that a closed pipe is met here, not at exit
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        runtime.leave(INTERRUPTED)
    except SystemExit as stop:  # of a handler of signals, by `runtime.exit_all`
        runtime.leave(int(stop.code or 0))
    except BrokenPipeError:
        # Python would flush once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        runtime.exit_all("error: the output was closed by its reader", OUTPUT_CLOSED)
    except (InputError, OSError, FloatingPointError) as error:
        if debug and runtime.process_count() == 1:
            raise
        diverged = isinstance(error, FloatingPointError)
        code = DIVERGED if diverged else USER_ERROR
        runtime.exit_all(f"error: {line_of(error, output or Path())}", code)
    except Exception as error:
        runtime.fail(error)
    sys.exit(code)
