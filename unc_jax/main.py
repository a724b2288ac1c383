"""Prepare, train and evaluate one config: from a folder of scans to a table row.

python -m unc_jax.main --config configs/liver_large_wcc.py [--workdir W]
    [--stage all|plan|prepare|train|evaluate] [--config.field=value ...] [--debug]
    [--distributed]

With --distributed the same command, started on every host, is one run on the devices of
all; workdir and data must be folders that all see. See `unc_jax.runtime.initialize`.
"""

import json
import signal
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from unc_jax import plan, runtime, stages
from unc_jax.check_config import check_config
from unc_jax.config import Config, flat_config
from unc_jax.data import files
from unc_jax.data.cohort import Cohort, open_cohort
from unc_jax.errors import InputError, words_of_system
from unc_jax.segmentation.fit import Stopped

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file of the run.")
_WORKDIR = flags.DEFINE_string(
    "workdir", "", "Run folder; runs/<config name> if empty."
)
_STAGE = flags.DEFINE_enum(
    "stage",
    "all",
    ["all", "plan", "prepare", "train", "evaluate"],
    "Which stage to run.",
)
_DEBUG = flags.DEFINE_bool("debug", False, "Show tracebacks of errors in the input.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes, on as many hosts, of one run."
)

_USER_ERROR, _TRAINING_ERROR = 2, 3


def run(argv: list[str]) -> None:
    """Runs the stages asked for; the work of `main` without its error handling."""
    if len(argv) > 1:
        raise InputError(f"stray argument {argv[1]!r}; fields are --config.field=value")
    config = _CONFIG.value
    check_config(config)
    workdir = _workdir()
    if _DISTRIBUTED.value:
        runtime.initialize()
        _check_same_command(config, workdir)
    if _STAGE.value == "plan":  # touches no folder
        for line in plan.plan(config, workdir):
            _say(line)
        return
    doing = f"unc_jax.main --stage {_STAGE.value}"
    with files.hold_for_all(workdir, doing), runtime.cache_compilations(workdir):
        if runtime.is_main():
            files.sweep(workdir)
        prepared = _prepared(config)
        _say(f"prepared cohort: {prepared.path} ({len(prepared.ids)} cases)")
        if _STAGE.value in ("all", "train"):
            _write_config(config, workdir)
            stages.train(config, prepared, workdir)
        if _STAGE.value in ("all", "evaluate"):
            if not (workdir / "config.json").exists():  # an ensemble trains nothing
                _write_config(config, workdir)
            _say(f"\n{stages.evaluate_run(config, prepared, workdir)}\n")
            _say(f"cases:   {workdir / 'cases.csv'}")
            _say(f"summary: {workdir / 'summary.json'}")
            _say(f"figures: {workdir / 'figures'}")
            _say(f"report:  {workdir / 'report.html'}")
        runtime.shutdown()


def _prepared(config: Config) -> Cohort:
    """The first process prepares, the others wait and open what it prepared."""
    if runtime.is_main():
        prepared = stages.prepare(config)
        runtime.broadcast(str(prepared.path))
        return prepared
    return open_cohort(Path(runtime.broadcast("")))


def _write_config(config: Config, workdir: Path) -> None:
    if runtime.is_main():
        files.write_json(workdir / "config.json", flat_config(config))


def _check_same_command(config: Config, workdir: Path) -> None:
    """Processes that do not the same would wait for each other for ever."""
    own = json.dumps([_STAGE.value, str(workdir.resolve()), flat_config(config)])
    if runtime.broadcast(own) != own:
        raise InputError(
            f"process {runtime.process_index()} was started with another config, "
            "stage or workdir than the first"
        )


def _say(line: str) -> None:
    if runtime.is_main():
        print(line)


def main(argv: list[str]) -> None:
    """Turns errors that a user can mend into one line and exit code 2.

    SIGTERM ends any stage with 143, SIGINT with 130; what is finished is kept.
    """
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO if _DEBUG.value else logging.WARNING)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    try:
        run(argv)
    except Stopped as stop:
        runtime.shutdown()
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except (InputError, OSError, FloatingPointError) as error:
        if _DEBUG.value and runtime.process_count() == 1:
            raise
        system = isinstance(error, OSError)
        words = words_of_system(error, _workdir()) if system else str(error)
        diverged = isinstance(error, FloatingPointError)
        runtime.exit_all(
            f"error: {words}", _TRAINING_ERROR if diverged else _USER_ERROR
        )
    except Exception as error:
        runtime.fail(error)


def _stop(number: int, frame) -> None:
    """Leaves no temporary file; while it trains, `fit` saves the state instead."""
    print(f"stopped by signal {number}; run again to resume", file=sys.stderr)
    sys.exit(128 + number)


def _workdir() -> Path:
    return Path(_WORKDIR.value or f"runs/{_run_name()}")


def _run_name() -> str:
    """liver_large_wcc of configs/liver_large_wcc.py; file:argument joins with _."""
    value = config_flags.get_config_filename(flags.FLAGS["config"])
    path, _, argument = value.partition(":")
    return "_".join(filter(None, [Path(path).stem, argument]))


def _parse(argv: list[str]) -> list[str]:
    """Flags, with every mistake in them as one line and exit code 2."""
    try:
        flags.mark_flags_as_required(["config"])
        rest = flags.FLAGS(argv)
        list(_CONFIG.value)  # a config file that is not there fails only when touched
    except (
        flags.Error,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
    ) as error:
        if "--debug" in argv:
            raise
        reason = " ".join(str(error).split())
        print(f"error: {reason}", file=sys.stderr)
        sys.exit(_USER_ERROR)
    return rest


if __name__ == "__main__":
    app.run(main, flags_parser=_parse)
