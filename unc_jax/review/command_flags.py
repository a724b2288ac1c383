"""Flags that predict and score share."""

import argparse
from pathlib import Path

from unc_jax.data import files
from unc_jax.review import rule
from unc_jax.review.quality import LEVEL
from unc_jax.review.rule import Rule


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds --largest-component, --calibrate and the flags of the review rule."""
    parser.add_argument(
        "--largest-component",
        action="store_true",
        help="keep only the largest component of each mask; the row says what was "
        "removed",
    )
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="CASES_CSV",
        help="table of cases with a known Dice, to calibrate the predicted Dice",
    )
    parser.add_argument(
        "--target-dice",
        type=float,
        metavar="DICE",
        help="flag cases whose Dice may be below, by its lower bound",
    )
    parser.add_argument(
        "--review-fraction",
        type=float,
        metavar="SHARE",
        help="flag this share of the cases, the worst; 0.1 is the worst tenth",
    )
    parser.add_argument(
        "--level",
        type=float,
        default=LEVEL,
        help="share of cases with a Dice above their lower bound (%(default)s)",
    )
    parser.add_argument(
        "--release-level",
        type=float,
        metavar="SHARE",
        help="release cases from review, of which at most this share is expected to "
        "have a Dice below --target-dice",
    )


def rule_of(arguments: argparse.Namespace) -> Rule:
    """Returns the rule that the flags define; InputError for values out of range."""
    wanted = Rule(
        arguments.target_dice,
        arguments.review_fraction,
        arguments.level,
        arguments.release_level,
    )
    rule.check(wanted)
    return wanted


def flags_of(arguments: argparse.Namespace) -> dict[str, str]:
    """Returns the flags of a command as text, and the SHA-256 of the --calibrate table.

    Flags without a value are left out.
    """
    given = {
        name: str(value)
        for name, value in vars(arguments).items()
        if value is not None and value is not False and value != () and name != "debug"
    }
    if arguments.calibrate:
        given["calibrate_sha256"] = files.digest([arguments.calibrate])
    return given
