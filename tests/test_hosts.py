"""Two processes on this machine are one run, through failures, signals and kills."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from unc_jax import hosts
from unc_jax.errors import InputError
from unc_jax.segmentation.checkpoint import Checkpoints
from unc_jax.segmentation.train import build_model, empty_state

COUNT = 2
NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Programs compile in a third of the time; nothing of this is about their speed.
FLAGS = "--xla_backend_optimization_level=0"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def programs_in(cache):
    return {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def of_processes(cache):
    """The environment of each process, one device in each; programs are shared."""
    address = f"127.0.0.1:{free_port()}"
    return [
        {
            **dict(zip(NAMES, (address, str(COUNT), str(process)), strict=True)),
            "XLA_FLAGS": FLAGS,
            **programs_in(cache),
        }
        for process in range(COUNT)
    ]


def ends(processes):
    """Exit codes and standard errors."""
    errors = [process.communicate(timeout=300)[1] for process in processes]
    return [process.returncode for process in processes], errors


def start_code(code, environments):
    root = Path(__file__).parents[1]
    return [
        subprocess.Popen(
            [sys.executable, "-c", f"from unc_jax import hosts\n{code}"],
            env={**os.environ, "PYTHONPATH": str(root), **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]


def test_on_its_own_a_process_is_all_there_is():
    assert (hosts.count(), hosts.number(), hosts.leads()) == (1, 0, True)
    assert hosts.hear("word") == "word"
    assert hosts.greatest(3) == 3
    np.testing.assert_array_equal(hosts.gather(np.array([0.1])), [[0.1]])
    hosts.meet()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("here:1", "", ""), "JAX_NUM_PROCESSES, JAX_PROCESS_ID not set"),
        (("here:1", "2", ""), "JAX_PROCESS_ID not set"),
        (("here:1", "2", "one"), "whole numbers"),
        (("here:1", "2", "2"), "process_id < num_processes"),
    ],
)
def test_mistakes_in_the_variables(monkeypatch, values, message):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # of this process
    monkeypatch.setattr(jax._src.xla_bridge, "backends_are_initialized", bool)
    for name, value in zip(NAMES, values, strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        hosts.join()


def test_nobody_there_is_one_line(tmp_path):
    environments = of_processes(tmp_path)[1:]
    codes, errors = ends(start_code("hosts.join(wait_s=1)", environments))
    assert codes == [2]
    assert "not all processes met within 1 s" in errors[0]
    assert "Traceback" not in errors[0]


@pytest.mark.parametrize("failing", range(COUNT))
def test_a_failure_ends_all_wherever_they_are(tmp_path, failing):
    code = f"""
import numpy as np
hosts.join()
assert hosts.hear(f"from {{hosts.number()}}") == "from 0"
assert hosts.gather(np.array([0.1 + hosts.number()])).tolist() == [[0.1], [1.1]]
if hosts.number() == {failing}:
    hosts.end_all("error: the disk is full", 3)
hosts.meet()
"""
    codes, errors = ends(start_code(code, of_processes(tmp_path)))
    assert codes == [3, 3]
    for text in errors:
        assert text.count("error: the disk is full") == 1
        assert "Traceback" not in text


def steps_saved(folder):
    names = [p.name for p in (folder / "checkpoints").glob("step_????????")]
    return [int(name[5:]) for name in names]


def wait_for_step(folder, step, processes):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if any(saved >= step for saved in steps_saved(folder)):
            return
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of step {step}")


def params_of(config, folder):
    with Checkpoints(folder / "checkpoints") as checkpoints:
        restored = checkpoints.restore_latest(empty_state(config, build_model(config)))
        return restored.step, jax.device_get(restored.state)


@pytest.mark.slow
def test_two_processes_stopped_killed_and_resumed_train_as_one(
    start_main, tiny_config, tmp_path
):
    fields = {"train.steps": 3000, "train.validate_every_steps": 3000}
    fields["train.checkpoint_every_steps"] = 10
    folder = tmp_path / "run"

    def start_all(**changes):
        return [
            start_main(
                "--stage=train",
                "--distributed",
                environment=environment,
                **{**fields, **changes},
            )
            for environment in of_processes(tmp_path / "programs")
        ]

    stopped = start_all()
    wait_for_step(folder, 10, stopped)
    stopped[1].send_signal(signal.SIGTERM)  # and not the first one
    codes, errors = ends(stopped)
    assert codes == [128 + signal.SIGTERM] * COUNT, errors
    step = max(steps_saved(folder))
    assert all(f"stopped at step {step}, state saved" in text for text in errors)

    killed = start_all()
    wait_for_step(folder, step + 20, killed)
    for process in killed:
        process.kill()
    ends(killed)
    step = max(steps_saved(folder)) + 10
    ending = {"train.steps": step, "train.validate_every_steps": step}
    codes, errors = ends(start_all(**ending))
    assert codes == [0] * COUNT, errors

    alone = {
        "XLA_FLAGS": f"{FLAGS} --xla_force_host_platform_device_count={COUNT}",
        **programs_in(tmp_path / "programs"),
    }
    codes, errors = ends(
        [
            start_main(
                "--stage=train",
                workdir="alone",
                environment=alone,
                **{**fields, **ending},
            )
        ]
    )
    assert codes == [0], errors
    together, single = (params_of(tiny_config, tmp_path / n) for n in ("run", "alone"))
    assert together[0] == single[0] == step
    for a, b in zip(*(jax.tree.leaves(s[1]) for s in (together, single)), strict=True):
        np.testing.assert_array_equal(a, b)
    logs = [(tmp_path / n / "metrics.jsonl").read_text() for n in ("run", "alone")]
    assert logs[0] == logs[1]
    steps = [json.loads(one)["step"] for one in logs[0].splitlines() if "loss" in one]
    assert steps == list(range(2, step + 2, 2))
    assert not list(tmp_path.rglob(".tmp-*"))
