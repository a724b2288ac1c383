"""List of the commands, and the console script: unc-jax COMMAND ... runs one of them.

python -m unc_jax                 lists the commands
python -m unc_jax predict --help  is python -m unc_jax.predict --help
"""

import runpy
import sys
from collections.abc import Sequence

# Name, module below unc_jax, purpose.
COMMANDS = {
    "main": ("main", "prepares data for one config, trains and evaluates a run"),
    "predict": ("predict", "segments scans with a run and lists those to review"),
    "score": ("score", "lists the cases to review from another tool's samples"),
    "compare": ("compare", "compares runs: tables, figures, statistics"),
    "sensitivity": ("sensitivity", "evaluates one run under other settings"),
    "dataset": ("data.dataset", "checks a data set and lists every problem"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command as `python -m` would; without one, lists them."""
    asked, *flags = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if asked in ("-h", "--help"):
        print(_listing())
        return
    if asked not in COMMANDS:
        print(
            f"error: no command {asked!r}; commands are {', '.join(COMMANDS)}",
            file=sys.stderr,
        )
        sys.exit(2)
    module = f"unc_jax.{COMMANDS[asked][0]}"
    sys.argv = [module, *flags]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _listing() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {purpose}" for name, (_, purpose) in COMMANDS.items()]
    usage = "usage: unc-jax COMMAND [FLAGS], or python -m unc_jax COMMAND [FLAGS]"
    return "\n".join([usage, "", *lines, "", "unc-jax COMMAND --help lists its flags."])


if __name__ == "__main__":
    main()
