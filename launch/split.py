"""Draws one split of a data set into a file, for runs of several seeds to share.

python -m launch.split ROOT --output FILE [--seed 0]

A run draws its split by its seed, and runs on other splits cannot be compared. A file
that is there is kept if it fits the data.
"""

import argparse
import sys
from pathlib import Path

from unc_jax.data import dataset, split
from unc_jax.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m launch.split")
    parser.add_argument("root", type=Path, metavar="ROOT")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        ids = [case.id for case in dataset.read_task(options.root).training]
        if options.output.exists():
            split.read_split(options.output, ids)
        else:
            split.write_split(options.output, split.make_split(ids, options.seed))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"split: {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
