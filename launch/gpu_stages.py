"""Stages of the study at the paper's size: which are left, and one after the other."""

import argparse
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from launch.commands import STUDIES
from launch.study_archive import is_finished

ROOT = Path(__file__).parents[1]
# The first two answer the paper's question; then the rest of its Table 1, then Table 2.
ORDER = (
    *("liver_large_wcc", "liver_large_dice", "liver_small_wcc", "liver_small_dice"),
    *("tumor_large_wcc", "tumor_large_dice"),
)
# A tenth of the default's updates, at a rate and with a schedule that make up for it:
# results/synthetic_full.
FULL = {
    "train.steps": "2000",
    "train.learning_rate": "5e-4",
    "train.schedule": "cosine",
    "evaluate.mask_scope": "volume",
}
TOY = {
    "model.features": "4",
    "model.depth": "2",
    "data.shape": "(32, 32, 16)",
    "train.batch": "2",
    "train.steps": "20",
    "train.learning_rate": "5e-3",
    "train.steps_per_call": "10",
    "train.validate_every_steps": "20",
    "train.checkpoint_every_steps": "10",
    "evaluate.samples": "4",
    "evaluate.bootstrap": "1000",
}
TOY_PATCH = {"large": "(16, 16, 8)", "small": "(8, 8, 8)"}
SIZES = {False: "256,256,200", True: "32,32,16"}
# Seconds, until they were measured: 131 cases on 16 cores, a model on an H200.
EXPECTED = {"draw": 60.0, "prepare": 60.0, "model": 300.0}
TOY_EXPECTED = dict.fromkeys(EXPECTED, 5.0)
SAVING_S = 20.0  # from SIGTERM until a training has saved its state
PACKING_S = 10.0


class Stage(NamedTuple):
    """One command; `kind` says which stages take as long, `model` is its run or ""."""

    kind: str
    command: list[str]
    model: str = ""


def stages(options: argparse.Namespace) -> list[Stage]:
    """Returns what is left to do, in order; a target is prepared when it is needed."""
    work: Path = options.work
    left = [model for model in ORDER if not is_finished(work / "runs" / model)]
    if not left:
        return []
    root = str(work / "scans")
    python = [sys.executable, "-m"]
    size = SIZES[options.toy]
    found = [
        Stage(
            "draw",
            [
                *python, "unc_jax.data.phantom", "--output", root,
                "--cases", str(options.cases), "--seed", "0", "--size", size,
            ],
        ),
    ]  # fmt: skip
    prepared = set()
    fields = {
        "data.root": root,
        "data.prepared": str(work / "prepared"),
        **FULL,
        **(TOY if options.toy else {}),
    }
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    for model in left:
        config = STUDIES["liver"][model]
        run = ["--workdir", str(work / "runs" / model), *flags]
        if options.toy:
            patch = TOY_PATCH[model.split("_")[1]]
            run.append(f"--config.train.patch_shape={patch}")
        main = [*python, "unc_jax.main", "--config", config, *run]
        if (target := model.split("_")[0]) not in prepared:
            prepared.add(target)
            found.append(Stage("prepare", [*main, "--stage", "prepare"]))
        found.append(Stage("model", main, model))
    return found


def expected_seconds(kind: str, times: Sequence[dict[str, Any]], toy: bool) -> float:
    """Returns what a stage will take: a little more than one of its kind has taken.

    Of models the last, since the first compiled; of the rest the longest, since some
    found their work done.
    """
    known = [one["seconds"] for one in times if one["kind"] == kind and one["done"]]
    if not known:
        return (TOY_EXPECTED if toy else EXPECTED)[kind]
    return 1.1 * (known[-1] if kind == "model" else max(known))


def run_stages(
    todo: Sequence[Stage],
    machine: str,
    times: list[dict[str, Any]],
    *,
    deadline: float,
    expected: Callable[[str], float],
    run: Callable[[Stage, float], int],
    finished: Callable[[], None],
    now: Callable[[], float] = time.monotonic,
) -> str:
    """Runs stages until one does not fit, fails or is stopped; returns the reason.

    deadline, now: seconds of one clock. expected(kind): seconds. run(stage, seconds):
    the exit code of a stage, which it stops after so many. Each stage becomes an entry
    of `times`; finished() is called after each.
    """
    for stage in todo:
        name, started = stage.model or stage.kind, now()
        left = deadline - started - SAVING_S - PACKING_S
        if expected(stage.kind) > left:
            return f"{name} needs about {expected(stage.kind):.0f} s of {left:.0f} s"
        code = run(stage, left)
        seconds = round(now() - started, 1)
        times.append(
            {
                **{"kind": stage.kind, "name": name, "seconds": seconds},
                **{"done": code == 0, "machine": machine},
            }
        )
        print(f"{name}: {seconds} s, exit code {code}", flush=True)
        finished()
        # Another model may succeed where one has failed by itself.
        if code and (stage.kind != "model" or seconds >= left):
            return f"{name} ended with exit code {code}"
    return "some models failed"


def run_command(stage: Stage, seconds: float, log: Path) -> int:
    """Runs a stage, its output in `log`; after `seconds` it is told to save and end."""
    environment = {
        **os.environ,
        # One cache for all models: they share most programs, small ones as well.
        "JAX_COMPILATION_CACHE_DIR": str(log.parent / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "OPENBLAS_NUM_THREADS": "1",  # each core draws a case of its own
    }
    with open(log, "a", encoding="utf-8") as file:
        print(f"$ {shlex.join(stage.command)}", file=file, flush=True)
        process = subprocess.Popen(
            stage.command,
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            pass
        finally:  # of an interrupt as well
            process.terminate()
            try:
                process.wait(SAVING_S)
            except subprocess.TimeoutExpired:
                process.kill()
        return process.wait()
