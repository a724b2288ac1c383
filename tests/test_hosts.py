"""Two processes on this machine are one run, through failures, signals and kills."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import test_evaluate as small
from folders import state_of, steps_saved, wait_for_step

from unc_jax import runtime
from unc_jax.errors import InputError
from unc_jax.study import cases_table
from unc_jax.study.case_columns import EVALUATION_COLUMNS, REVIEW_COLUMNS

COUNT = 2
LONG = {
    "train.steps": 3000,
    "train.validate_every_steps": 3000,
    "train.checkpoint_every_steps": 10,
}
NAMES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def of_processes():
    """The environment of each process, one device in each."""
    address = f"127.0.0.1:{free_port()}"
    return [
        dict(zip(NAMES, (address, str(COUNT), str(process)), strict=True))
        for process in range(COUNT)
    ]


def ends(processes):
    """Exit codes and standard errors."""
    errors = [process.communicate(timeout=300)[1] for process in processes]
    return [process.returncode for process in processes], errors


def start_code(code, environments, *arguments):
    tests = Path(__file__).parent
    path = f"{tests.parent}{os.pathsep}{tests}"
    return [
        subprocess.Popen(
            [sys.executable, "-c", f"from unc_jax import runtime\n{code}", *arguments],
            env={**os.environ, "PYTHONPATH": path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]


def test_on_its_own_a_process_is_all_there_is():
    assert (runtime.process_count(), runtime.process_index(), runtime.is_main()) == (
        1,
        0,
        True,
    )
    assert runtime.broadcast("word") == "word"
    assert runtime.all_max(3) == 3
    assert runtime.all_gather([0.1]) == [[0.1]]
    assert runtime.on_main(lambda: "prepared") == "prepared"
    runtime.barrier()


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
        runtime.initialize()


def test_nobody_there_is_one_line():
    environments = of_processes()[1:]
    codes, errors = ends(start_code("runtime.initialize(wait_s=1)", environments))
    assert codes == [2]
    assert "not all processes connected within 1 s" in errors[0]
    assert "Traceback" not in errors[0]


VALUES = """
import math
runtime.initialize()
index = runtime.process_index()
assert runtime.broadcast(f"from {index}") == "from 0"
assert runtime.all_gather([0.1 + index]) == [[0.1], [1.1]]
long = {"text": "\u00e4" * 1000 * index, "nothing": None}
assert [len(one["text"]) for one in runtime.all_gather(long)] == [0, 1000]
assert math.isnan(runtime.broadcast(float("nan")))
assert runtime.all_max(index) == 1
assert runtime.on_main(lambda: index) == 0
"""


@pytest.mark.parametrize("failing", range(COUNT))
def test_an_error_within_a_shared_block_is_the_error_of_all(failing):
    code = f"""{VALUES}
from unc_jax import cli
from unc_jax.errors import InputError
def run():
    with runtime.shared_errors():
        if index == {failing}:
            raise InputError("the folder is in use")
    raise AssertionError("never reached")
cli.run_guarded(run, debug=False)
"""
    codes, errors = ends(start_code(code, of_processes()))
    assert codes == [2, 2]
    for text in errors:
        assert text.count("error: the folder is in use") == 1
        assert "Traceback" not in text


@pytest.mark.parametrize("failing", range(COUNT))
def test_a_failure_ends_the_others_while_they_wait(failing):
    """One line each; the others' says that it is not theirs."""
    code = f"""{VALUES}
from unc_jax import cli
def run():
    if index == {failing}:
        runtime.exit_all("error: the disk is full", 3)
    runtime.barrier()
cli.run_guarded(run, debug=False)
"""
    started = time.monotonic()
    codes, errors = ends(start_code(code, of_processes()))
    assert time.monotonic() - started < runtime.HEARTBEAT_S
    other = 1 - failing
    assert codes[failing] == 3
    assert errors[failing].count("error: the disk is full") == 1
    assert codes[other] != 0
    # JAX's own words, where its thread is faster than the error of the collective.
    assert "lost the connection" in errors[other] or "task died" in errors[other]
    assert "Traceback" not in errors[other]


@pytest.mark.slow
@pytest.mark.parametrize("killed", range(COUNT))
def test_a_killed_process_ends_one_that_computes(killed):
    """Within the heartbeats, here shortened from a minute to ten seconds."""
    code = f"""
import os, time
runtime.HEARTBEAT_S = 10
runtime.initialize()
if runtime.process_index() == {killed}:
    os.kill(os.getpid(), 9)
time.sleep(100)
"""
    started = time.monotonic()
    codes, errors = ends(start_code(code, of_processes()))
    assert time.monotonic() - started < 60
    assert codes[killed] == -signal.SIGKILL
    assert codes[1 - killed] not in (0, -signal.SIGKILL)
    assert "another task died" in errors[1 - killed]


# Of the cases a to f, the first process takes a, c, e and the second b, d, f.
EVALUATION = """
import json, os
from pathlib import Path
import test_evaluate as small
runtime.initialize()
broken = {os.environ["DIES_AT"]: KeyboardInterrupt()}
predict = small.Predictor(broken=broken)
try:
    small.evaluate(predict, small.small_cohort(), Path(os.environ["FOLDER"]))
except KeyboardInterrupt:
    os.kill(os.getpid(), 9)
runtime.barrier()
print(json.dumps(predict.asked))
"""


def rows_of(folder, name="cases.csv"):
    """By case, without the time it took."""
    if not (folder / name).exists():
        return {}
    rows = cases_table.read_rows(folder / name, EVALUATION_COLUMNS)
    return {row["case"]: {**row, "seconds": 0} for row in rows}


def test_processes_share_the_cases_and_leave_none_of_a_dead_one(tmp_path):
    together, alone = tmp_path / "together", tmp_path / "alone"

    def start_all(dies_at):
        environments = of_processes()
        more = {"FOLDER": str(together), "DIES_AT": dies_at}
        return start_code(EVALUATION, [{**one, **more} for one in environments])

    first = start_all("d")
    assert first[1].wait(timeout=120) == -signal.SIGKILL
    while len(rows_of(together, "cases.part-0.csv")) < 3:
        assert first[0].poll() is None
        time.sleep(0.02)
    first[0].kill()  # which would wait for the other one until JAX gives it up
    ends(first)
    assert list(rows_of(together, "cases.part-1.csv")) == ["b"]
    assert not (together / "cases.csv").exists()

    second = start_all("none")
    printed = [process.communicate(timeout=120)[0] for process in second]
    assert [process.returncode for process in second] == [0, 0]
    assert [json.loads(text.splitlines()[-1]) for text in printed] == [["d"], ["f"]]
    small.evaluate(small.Predictor(), small.small_cohort(), alone)
    rows = rows_of(together)
    assert list(rows) == list("abcdef")
    assert rows == rows_of(alone)
    names = [sorted(p.name for p in one.iterdir()) for one in (together, alone)]
    assert names[0] == names[1]


def test_a_process_on_its_own_takes_over_what_several_left(tmp_path):
    predict, cohort = small.Predictor(), small.small_cohort()
    small.evaluate(predict, cohort, tmp_path)
    rows = cases_table.read_rows(tmp_path / "cases.csv", EVALUATION_COLUMNS)
    (tmp_path / "cases.csv").unlink()
    late = [
        cases_table.new_row(
            EVALUATION_COLUMNS, case=c, split="x", status="failed: late"
        )
        for c in "bd"
    ]
    cases_table.write_rows(
        tmp_path / "cases.part-0.csv", [*rows[0:5:2], late[1]], EVALUATION_COLUMNS
    )
    cases_table.write_rows(
        tmp_path / "cases.part-7.csv", [late[0], rows[3]], EVALUATION_COLUMNS
    )
    predict.asked.clear()
    again = small.evaluate(predict, cohort, tmp_path)
    assert predict.asked == ["b", "f"]
    assert cases_table.read_rows(tmp_path / "cases.csv", EVALUATION_COLUMNS) == again
    assert [row["seconds"] for row in again[2:5]] == [r["seconds"] for r in rows[2:5]]
    assert not list(tmp_path.glob("*.part-*"))

    # Rows of another model are no rows.
    os.rename(tmp_path / "cases.csv", tmp_path / "cases.part-0.csv")
    predict.asked.clear()
    other = small.made_with(digest="bb")
    small.evaluate(predict, cohort, tmp_path, made_with=other, replace=True)
    assert len(predict.asked) == 6


@pytest.fixture
def start_all(start_main):
    """Starts all processes of a training run with a checkpoint every ten steps."""

    def start(**changes):
        return [
            start_main(
                "--stage=train",
                "--distributed",
                environment=environment,
                **{**LONG, **changes},
            )
            for environment in of_processes()
        ]

    return start


def stop_one(folder, processes):
    """SIGTERM to the second process; the step at which all stopped."""
    wait_for_step(folder, 10, *processes)
    processes[1].send_signal(signal.SIGTERM)
    codes, errors = ends(processes)
    assert codes == [128 + signal.SIGTERM] * COUNT, errors
    step = max(steps_saved(folder))
    assert all(f"stopped at step {step}, state saved" in text for text in errors)
    return step


def losses_of(folder):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {json.loads(line)["step"]: line for line in lines if "loss" in line}, lines


def test_a_signal_to_one_process_stops_all_at_one_step(start_all, tmp_path):
    step = stop_one(tmp_path / "run", start_all())
    by_step, lines = losses_of(tmp_path / "run")
    assert list(by_step) == list(range(2, step + 2, 2))
    assert len(lines) == len(by_step)


@pytest.mark.slow
def test_two_processes_stopped_killed_and_resumed_train_as_one(
    start_all, start_main, tiny_config, tmp_path
):
    folder = tmp_path / "run"
    step = stop_one(folder, start_all())
    killed = start_all()
    wait_for_step(folder, step + 20, *killed)
    for process in killed:
        process.kill()
    ends(killed)
    step = max(steps_saved(folder)) + 10
    ending = {"train.steps": step, "train.validate_every_steps": step}
    codes, errors = ends(start_all(**ending))
    assert codes == [0] * COUNT, errors

    devices = f"--xla_force_host_platform_device_count={COUNT}"
    alone = {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {devices}"}
    codes, errors = ends(
        [
            start_main(
                "--stage=train",
                workdir="alone",
                environment=alone,
                **{**LONG, **ending},
            )
        ]
    )
    assert codes == [0], errors
    together, single = (state_of(tiny_config, tmp_path / n) for n in ("run", "alone"))
    assert together[0] == single[0] == step
    for a, b in zip(*(jax.tree.leaves(s[1]) for s in (together, single)), strict=True):
        np.testing.assert_array_equal(a, b)
    by_step, lines = losses_of(folder)
    assert (by_step, lines) == losses_of(tmp_path / "alone")
    assert list(by_step) == list(range(2, step + 2, 2))
    assert len(lines) == len(by_step) + 1  # and one validation
    assert not list(tmp_path.rglob(".tmp-*"))


@pytest.mark.slow
def test_two_processes_evaluate_and_predict_as_one(start_main, tiny_config, tmp_path):
    run, scans = tmp_path / "run", f"{tiny_config.data.root}/imagesTr"
    kept = tmp_path / "kept"
    elsewhere = {"train.checkpoints": str(kept)}
    trained = start_main("--stage=train", **elsewhere)
    codes, errors = ends([trained])
    assert codes == [0], errors
    assert not (run / "checkpoints").exists()
    shutil.copytree(run, tmp_path / "alone")
    shutil.copytree(kept / "run", kept / "alone")
    for workdir, flags, environments in (
        ("alone", [], [{}]),
        ("run", ["--distributed"], of_processes()),
    ):
        codes, errors = ends(
            [
                start_main(
                    "--stage=evaluate",
                    *flags,
                    workdir=workdir,
                    environment=one,
                    **elsewhere,
                )
                for one in environments
            ]
        )
        assert codes == [0] * len(environments), errors
    found = rows_of(run)
    assert len(found) == 6
    assert found == rows_of(tmp_path / "alone")
    for name in ("voxels.json", "summary.json", "preparation.json"):
        paths = [tmp_path / one / name for one in ("run", "alone")]
        assert paths[0].read_text() == paths[1].read_text()

    code = """
import sys
from unc_jax import predict
predict.main(sys.argv[1:])
"""
    for workdir, flags, environments in (
        ("alone", [], [{}]),
        ("run", ["--distributed"], of_processes()),
    ):
        output = tmp_path / f"predicted_{workdir}"
        arguments = ["--run", str(run), "--input", scans, "--output", str(output)]
        arguments += ["--review-fraction=0.5", *flags]
        kept = {}
        if flags:  # killed once some case is done, the same command goes on
            killed = start_code(code, environments, *arguments)
            while not (done := list(output.glob("*/case.json"))):
                assert all(one.poll() is None for one in killed), ends(killed)
                time.sleep(0.01)
            for one in killed:
                one.kill()
            ends(killed)
            assert not (output / "cases.csv").exists()
            kept = {path: path.stat().st_mtime_ns for path in done}
            environments = of_processes()
        codes, errors = ends(start_code(code, environments, *arguments))
        assert codes == [0] * len(environments), errors
        assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
        assert not list(output.rglob(".tmp-*"))
    tables = []
    for workdir in ("alone", "run"):
        table = cases_table.read_rows(
            tmp_path / f"predicted_{workdir}" / "cases.csv", REVIEW_COLUMNS
        )
        tables.append([{**row, "seconds": 0} for row in table])
    assert len(tables[0]) == 6
    assert tables[0] == tables[1]
