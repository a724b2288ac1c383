"""Prepares data for one config, trains its network and evaluates it.

python -m unc_jax.main --config configs/liver_large_wcc.py [--workdir W]
    [--stage all|plan|prepare|train|evaluate] [--config.field=value ...]
    [--replace-rows] [--distributed] [--debug]

A command that conflicts with the content of the run folder is refused and changes
nothing there. Rows of an evaluation under other settings are replaced only with
--replace-rows.

With --distributed the same command, started on every host, is one run on the devices of
all hosts; workdir and data must be on a shared file system. See
`unc_jax.runtime.initialize`.
"""

import signal
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from configs import base
from unc_jax import cli, compilation, plan, preparation, runtime, stages
from unc_jax.check_config import check_config
from unc_jax.config import Config, flat_config
from unc_jax.data import files
from unc_jax.data.cohort import Cohort, open_cohort
from unc_jax.errors import InputError, counted
from unc_jax.segmentation.fit import Stopped

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file of the run.")
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Run folder; runs/NAME of the config if empty."
)
_STAGE = flags.DEFINE_enum(
    "stage",
    "all",
    ["all", "plan", "prepare", "train", "evaluate"],
    "Which stage to run.",
)
_REPLACE_ROWS = flags.DEFINE_bool(
    "replace-rows", False, "Replace the rows of an evaluation under other settings."
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show tracebacks of errors in the input.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "This process is one of several, one per host, of one run."
)


def run(argv: list[str]) -> int:
    """Runs the stages asked for and returns the exit code."""
    if len(argv) > 1:
        raise InputError(
            f"stray argument {argv[1]!r}; set fields by --config.field=value"
        )
    config = _CONFIG.value
    check_config(config)
    workdir = _workdir()
    if _DISTRIBUTED.value:
        runtime.initialize()
        _check_same_command(config, workdir)
    if _STAGE.value == "plan":  # touches no folder
        for line in plan.plan(config, workdir):
            _print(line)
        return 0
    prepared = _prepared(config)
    _print(f"prepared cohort: {prepared.path} ({counted(len(prepared.ids), 'case')})")
    stages.check_run(
        config,
        prepared,
        workdir,
        training=_STAGE.value in ("all", "train"),
        evaluating=_STAGE.value in ("all", "evaluate"),
        replace=_REPLACE_ROWS.value,
    )
    doing = f"unc_jax.main --stage {_STAGE.value}"
    with files.hold_for_all(workdir, doing), compilation.cache_compilations(workdir):
        try:
            _run_stages(config, prepared, workdir)
        except Stopped as stop:
            runtime.barrier()
            print(stop, file=sys.stderr)
            return stop.exit_code
        runtime.barrier()
    return 0


def main(argv: list[str]) -> None:
    """Runs the command and exits; errors that a user can correct are one line.

    SIGTERM ends any stage with exit code 143, SIGINT with 130; finished work is kept.
    """
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO if _DEBUG.value else logging.WARNING)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    cli.run_guarded(lambda: run(argv), debug=_DEBUG.value, output=_workdir())


def _run_stages(config: Config, prepared: Cohort, workdir: Path) -> None:
    if _STAGE.value in ("all", "train"):
        stages.train(config, prepared, workdir)
    if _STAGE.value in ("all", "evaluate"):
        replace = _REPLACE_ROWS.value
        table = stages.evaluate_run(config, prepared, workdir, replace=replace)
        _print(f"\n{table}\n")
        _print(f"cases:   {workdir / 'cases.csv'}")
        _print(f"summary: {workdir / 'summary.json'}")
        _print(f"figures: {workdir / 'figures'}")
        _print(f"report:  {workdir / 'report.html'}")


def _prepared(config: Config) -> Cohort:
    """Returns the cohort that the main process prepares, opened by every process."""
    path = runtime.on_main(lambda: str(preparation.prepare(config).path))
    with runtime.shared_errors():
        return open_cohort(Path(path))


def _check_same_command(config: Config, workdir: Path) -> None:
    """Raises InputError when commands differ, which would deadlock the processes."""
    own = [_STAGE.value, str(workdir.resolve()), flat_config(config)]
    first = runtime.broadcast(own)
    with runtime.shared_errors():
        if first != own:
            raise InputError(
                f"process {runtime.process_index()} was started with another config, "
                "stage or workdir than the first"
            )


def _print(line: str) -> None:
    if runtime.is_main():
        print(line)


def _stop(number: int, frame) -> None:
    """Ends the run on a signal; while it trains, `fit` handles signals instead."""
    runtime.exit_all(f"stopped by signal {number}; run again to resume", 128 + number)


def _workdir() -> Path:
    return files.expanded(_WORKDIR.value or f"runs/{_run_name()}")


def _run_name() -> str:
    """Returns the config file's name, e.g. liver_large_wcc, and :argument, joined."""
    value = config_flags.get_config_filename(flags.FLAGS["config"])
    path, _, argument = value.partition(":")
    return "_".join(filter(None, [Path(path).stem, argument]))


def _located(word: str) -> str:
    """Replaces configs/NAME.py by the installed file when the path does not exist."""
    flag, folder, rest = word.partition("configs/")
    name = rest.partition(":")[0]
    installed = Path(base.__file__).with_name(name) if name else Path()
    here = Path(folder, name)
    if flag in ("", "--config=") and not here.is_file() and installed.is_file():
        return f"{flag}{installed.parent.as_posix()}/{rest}"
    return word


def _config_first(argv: list[str]) -> list[str]:
    """Returns the command line with --config moved before the --config.field flags.

    Raises OSError when --config is missing or names no existing file.
    """
    names, rest = [], []
    left = iter(argv[1:])
    for word in left:
        if word == "--config" or word.startswith("--config="):
            name = word[len("--config=") :] if "=" in word else next(left, "")
            if not Path(name.partition(":")[0]).is_file():
                what = f"no config file {name}" if name else "--config names no file"
                raise OSError(f"{what}; the available ones are in configs/")
            names.append(f"--config={name}")
        else:
            rest.append(word)
    if not names and not {"--help", "-h", "-help", "--helpfull"} & {*rest}:
        raise OSError("name a config by --config configs/NAME.py")
    return [argv[0], *names, *rest]


def _reason(error: Exception) -> str:
    """Returns the reason of an error in the flags, in one line."""
    # ml_collections wraps a KeyError, whose text is its argument in quotes.
    inner = next(iter(error.args), None)
    text = str(inner.args[0] if isinstance(inner, KeyError) else error)
    head, traceback, tail = text.partition("Traceback")
    if traceback:  # of a config file
        head = head.replace(": Error whilst parsing config file", "")
        if "get_config() takes 0" in tail:
            tail = "this config takes no argument after a colon"
        text = f"{head.removeprefix('flag ')} {tail.splitlines()[-1]}"
    return " ".join(text.split())


def _parse(argv: list[str]) -> list[str]:
    """Parses the flags; on an error prints one line and exits with code 2."""
    try:
        flags.mark_flags_as_required(["config"])
        # ml_collections looks for the fields in sys.argv itself.
        sys.argv = _config_first([_located(word) for word in argv])
        rest = flags.FLAGS(sys.argv)
        list(_CONFIG.value)  # a config file that is not there fails only when touched
    except (
        flags.Error,
        AttributeError,
        ArithmeticError,
        ImportError,
        KeyError,
        NameError,
        SyntaxError,
        TypeError,
        ValueError,
        OSError,
    ) as error:
        if "--debug" in argv:
            raise
        print(f"error: {_reason(error)}", file=sys.stderr)
        sys.exit(cli.USER_ERROR)
    return rest


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
