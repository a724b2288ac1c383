"""A training run killed twenty times is the undisturbed one, bit by bit."""

import json
import os
import random
import signal
import time

import jax
import numpy as np
import pytest

from unc_jax import preparation
from unc_jax.segmentation.checkpoint import Checkpoints
from unc_jax.segmentation.models import build_model
from unc_jax.segmentation.train import create_state

KILLS = 20
PHASES = ("start-up", "training", "validation", "checkpoint")
EVERY = 20  # steps between validations
NOTICE_S = 30.0  # what clouds give, on a machine of one's own
PATIENCE_S = 300.0


def logged(folder):
    """Step and names of the last whole line of metrics.jsonl."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        record = json.loads(lines[-1])
    except (OSError, IndexError, json.JSONDecodeError):
        return 0, ()
    return record["step"], tuple(record)


def reached(phase, folder, begun, started):
    """Whether a run is in `phase` that `started` then, when `begun` had been logged."""
    step, names = logged(folder)
    if phase == "checkpoint":  # not what a kill left
        torn = (folder / "checkpoints").glob("*.orbax-checkpoint-tmp")
        return any(changed(path) > started for path in torn)
    if (step, names) == begun:
        return False
    return phase == "training" or (step % EVERY == 0 and "loss" in names)


def changed(path):
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # renamed meanwhile
        return 0


def wait_for(phase, folder, process, draw):
    """Returns in that phase of the process, at a random moment of it."""
    if phase == "start-up":
        time.sleep(draw.uniform(0, 8))
        return
    begun, started = logged(folder), time.time()
    while not reached(phase, folder, begun, started):
        assert process.poll() is None, process.communicate()
        assert time.time() < started + PATIENCE_S, phase
        time.sleep(0.001)
    time.sleep(draw.uniform(0, 1.0 if phase == "training" else 0.02))


def kept(config, folder):
    """Step and leaves of the latest and of the best checkpoint."""
    like = create_state(config, build_model(config))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        found = checkpoints.restore(like), checkpoints.restore(like, best=True)
    return [(r.step, jax.tree.leaves(jax.device_get(r.state))) for r in found]


@pytest.mark.slow
def test_twenty_kills_change_nothing(start_main, tiny_config, tmp_path):
    draw = random.Random(0)
    folder, changes = tmp_path / "run", {"train.steps": 10**6}
    changes |= {"train.validate_every_steps": EVERY, "train.checkpoint_every_steps": 6}
    phases = [*PHASES * (KILLS // len(PHASES))]
    draw.shuffle(phases)
    for number, phase in enumerate(phases):
        chosen = (signal.SIGKILL, signal.SIGTERM)[number % 2]
        process = start_main("--stage=train", **changes)
        wait_for(phase, folder, process, draw)
        process.send_signal(chosen)
        asked = time.monotonic()
        _, errors = process.communicate(timeout=PATIENCE_S)
        took, code = time.monotonic() - asked, process.returncode
        print(f"{number} {phase} {chosen.name}: {code}, {took:.2f} s", logged(folder))
        if chosen == signal.SIGKILL:
            assert code == -signal.SIGKILL
        elif code != -signal.SIGTERM or phase != "start-up":  # not before its handler
            assert code == 128 + signal.SIGTERM, errors
        # On a shared machine a process gets its share of the cores alone.
        waiting = os.getloadavg()[0] / (os.cpu_count() or 1)
        assert took < NOTICE_S * max(1.0, waiting)
    steps = -(-(logged(folder)[0] + 1) // EVERY) * EVERY
    for workdir in ("run", "undisturbed"):
        ending = {**changes, "train.steps": steps}
        process = start_main("--stage=train", workdir=workdir, **ending)
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
    undisturbed = tmp_path / "undisturbed"
    for ours, theirs in zip(
        kept(tiny_config, folder), kept(tiny_config, undisturbed), strict=True
    ):
        assert ours[0] == theirs[0]
        jax.tree.map(np.testing.assert_array_equal, ours[1], theirs[1])
    logs = [run / "metrics.jsonl" for run in (folder, undisturbed)]
    assert logs[0].read_text() == logs[1].read_text()
    cohort = preparation.prepare(tiny_config).path
    left = [p for f in (folder, cohort) for p in f.rglob("*") if "tmp" in p.name]
    assert not left
