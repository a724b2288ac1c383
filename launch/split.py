"""Draws one split of a data set into a file, for runs to share.

python -m launch.split ROOT --output FILE [--seed 0]

Runs on other splits cannot be compared. A file that is there is kept if it fits the
data.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from unc_jax.cli import Parser, run_command
from unc_jax.data import dataset, split


def run(arguments: argparse.Namespace) -> None:
    """Draws the split, or checks the one that is there."""
    ids = [case.id for case in dataset.read_task(arguments.root).training]
    if arguments.output.exists():
        split.read_split(arguments.output, ids)
    else:
        split.write_split(arguments.output, split.make_split(ids, arguments.seed))
    print(f"split: {arguments.output}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 and one line on wrong input."""
    parser = Parser(
        "launch.split",
        "Draws one split of a data set into a file, for runs to share.",
        example="Task03_Liver --output split.json",
    )
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    run_command(run, parser, argv)


if __name__ == "__main__":
    main()
