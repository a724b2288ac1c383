"""What the commands of a review share: flags, versions, errors as one line."""

import argparse
import importlib.metadata
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from absl import logging

from unc_jax import runtime
from unc_jax.errors import InputError, words_of_system
from unc_jax.review.rule import Rule

USER_ERROR, SOME_FAILED = 2, 4


class Parser(argparse.ArgumentParser):
    """Mistakes in flags are one line, as every other mistake."""

    def error(self, message: str) -> NoReturn:
        print(f"error: {message}; --help lists the flags", file=sys.stderr)
        sys.exit(USER_ERROR)


def add_review_flags(parser: argparse.ArgumentParser) -> None:
    """--calibrate, --target-dice, --review-fraction, --level and --debug."""
    parser.add_argument("--calibrate", type=Path, help="cases.csv with known Dice")
    parser.add_argument("--target-dice", type=float, help="review what may be below")
    parser.add_argument("--review-fraction", type=float, help="review the worst share")
    parser.add_argument("--level", type=float, default=0.9, help="%(default)s")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")


def guarded(
    run: Callable[[argparse.Namespace], int],
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None,
) -> NoReturn:
    """Exits with what `run` returns; errors that a user can mend are one line."""
    arguments = parser.parse_args(argv)
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO if arguments.debug else logging.ERROR)
    try:
        sys.exit(run(arguments))
    except (InputError, OSError) as error:
        if arguments.debug and runtime.count() == 1:
            raise
        known = isinstance(error, InputError)
        words = str(error) if known else words_of_system(error, arguments.output)
        runtime.end_all(f"error: {' '.join(words.split())}", USER_ERROR)
    except Exception as error:
        runtime.fail(error)


def rule_text(rule: Rule) -> str:
    """The rule in words."""
    parts = ["every case that failed, came out empty or is unlike the training cases"]
    if rule.target_dice is not None:
        parts.append(
            f"cases whose lower bound of Dice (level {rule.level:g}) is below "
            f"{rule.target_dice:g}"
        )
    if rule.review_fraction is not None:
        parts.append(f"the worst {100 * rule.review_fraction:g} %")
    return f"To review: {'; '.join(parts)}."


def versions() -> dict[str, str]:
    """Of the program and what its numbers may depend on, and the time."""
    found = {}
    for name in ("unc_jax", "jax", "flax", "numpy"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:  # run from a folder of sources
            found[name] = "not installed"
    made = time.strftime("%Y-%m-%d %H:%M")
    return {**found, "python": platform.python_version(), "made": made}
