"""List of the commands, and the console script: unc-jax COMMAND ... runs one of them.

python -m unc_jax                 lists the commands
python -m unc_jax predict --help  is python -m unc_jax.predict --help
"""

import runpy
import sys
from collections.abc import Sequence

# Name, module below unc_jax, purpose.
COMMANDS = {
    "main": ("main", "prepares, trains and evaluates one config: a run"),
    "predict": ("predict", "segments scans by a run and lists which ones to review"),
    "score": ("score", "the same list for samples that any other tool made"),
    "compare": ("compare", "puts runs side by side: tables, figures, statistics"),
    "sensitivity": ("sensitivity", "evaluates one run under other settings"),
    "dataset": ("data.dataset", "checks a data set and names every problem"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs one command as `python -m` would; without one, lists them."""
    asked, *flags = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if asked in ("-h", "--help"):
        print(_listing())
        return
    if asked not in COMMANDS:
        print(
            f"error: no command {asked!r}; there are {', '.join(COMMANDS)}",
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
