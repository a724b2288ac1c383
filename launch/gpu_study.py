"""Runs the study at the paper's size in slices, on a machine that is lent for minutes.

python -m launch.gpu_study --seconds 540 --output FOLDER [--archive OLD.tar.xz]
    [--work DIR] [--cases 131] [--max-mb 15] [--toy]

Draws and prepares the synthetic cohort, then trains and evaluates the six models one
after the other. Ends by itself before `--seconds` are over: a stage that would not fit
is not begun, and one that takes longer than expected is stopped, so that it saves.
FOLDER/study.tar.xz holds the finished models without weights; given it as --archive,
the next call goes on behind them. DIR holds everything else: with the same DIR a call
also goes on with unfinished models.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch.gpu_stages import (
    ORDER,
    Stage,
    expected_seconds,
    run_command,
    run_stages,
    stages,
)
from launch.study_archive import (
    LOG,
    TIMES,
    is_finished,
    pack,
    read_archived_times,
    read_times,
    unpack,
)
from unc_jax import cli
from unc_jax.data.files import write_json
from unc_jax.errors import InputError


def device() -> str:
    """Returns the names of the accelerators, as nvidia-smi has them."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "no NVIDIA GPU"
    return "; ".join(found.stdout.split("\n")).strip("; ")


def _check_cohort(times: dict[str, Any], cohort: dict[str, Any], place: Path) -> None:
    """Raises InputError if the times are of the study of another cohort."""
    if (found := times.get("cohort", cohort)) != cohort:
        raise InputError(
            f"{place} is of the study of {found}, not of {cohort}; choose another "
            "--work or --archive, or give the same --cases and --toy"
        )


def study(options: argparse.Namespace) -> None:
    """Goes on with the study for a while; packs what is finished."""
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    work, archive = options.work, options.output / "study.tar.xz"
    cohort = {"cases": options.cases, "toy": options.toy}
    _check_cohort(read_times(work), cohort, work)
    if options.archive:
        _check_cohort(read_archived_times(options.archive), cohort, options.archive)
    work.mkdir(parents=True, exist_ok=True)
    if options.archive:
        unpack(options.archive, work)
    before = read_times(work)
    times, log = before.get("stages", []), work / LOG

    def run(stage: Stage, seconds: float) -> int:
        code = run_command(stage, seconds, log)
        if code:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            print(*lines[-20:], sep="\n", flush=True)
        return code

    def keep() -> None:
        write_json(work / TIMES, {"cohort": cohort, "stages": times})
        left_out = pack(work, archive, ORDER, max_bytes=options.max_mb * 1_000_000)
        if left_out:
            print(f"left out of {archive}: {', '.join(left_out)}", flush=True)

    left = run_stages(
        stages(options),
        f"{device()}, {os.cpu_count()} CPU cores",
        times,
        deadline=started + options.seconds,
        expected=lambda kind: expected_seconds(kind, times, options.toy),
        run=run,
        finished=keep,
    )
    keep()
    done = [model for model in ORDER if is_finished(work / "runs" / model)]
    print(f"{len(done)} of {len(ORDER)} models: {', '.join(done) or 'none'}")
    if len(done) < len(ORDER):
        print(f"{left}; output of the stages: {log}; go on with --archive {archive}")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with 2 and one line on wrong input."""
    parser = cli.Parser(
        "launch.gpu_study",
        "Runs the study at the paper's size in slices.",
        example="--seconds 540 --output slice1",
    )
    parser.add_argument("--seconds", type=float, required=True, help="to be ended by")
    parser.add_output("folder for study.tar.xz")
    parser.add_argument("--archive", type=Path, help="of an earlier call")
    parser.add_argument("--work", type=Path, help="for all else; OUTPUT/work")
    parser.add_argument("--cases", type=int, help="scans to draw: 131, as a toy 12")
    parser.add_argument("--max-mb", type=float, default=15, help="of study.tar.xz")
    parser.add_argument("--toy", action="store_true", help="small, for a CPU")
    options = parser.parse_args(argv)
    options.cases = options.cases or (12 if options.toy else 131)
    options.work = (options.work or options.output / "work").resolve()
    cli.run_guarded(lambda: study(options), debug=options.debug, output=options.output)


if __name__ == "__main__":
    main()
