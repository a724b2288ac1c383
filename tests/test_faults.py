"""Full disks and dead processes: said in one line, nothing half written, resumed."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from folders import state_of

from unc_jax import predict, preparation, stages
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.segmentation.checkpoint import Checkpoints
from unc_jax.study import cases_table
from unc_jax.study.case_columns import REVIEW_COLUMNS

PAGE = 4096


@pytest.fixture
def disk(tmp_path):
    """A disk in memory, of 4 MB and 200 files and folders."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=200", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.contextmanager
def only(left, disk):
    """Leaves `left` bytes free on `disk`, for a while."""
    free = shutil.disk_usage(disk).free
    assert free >= left
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(free - left))
    try:
        yield
    finally:
        ballast.unlink()


def contents(folder):
    """Bytes of every file that bears its final name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not re.search(r"tmp|\.lock", str(path.relative_to(folder)))
    }


def assert_no_leftovers(folder):
    assert not [path for path in folder.rglob("*") if "tmp" in path.name]


@contextlib.contextmanager
def only_files(left, disk):
    """Leaves room for `left` files on `disk`, and much room in them."""
    ballast = disk / "many"
    ballast.mkdir()
    for number in range(os.statvfs(disk).f_ffree - left):
        (ballast / str(number)).touch()
    try:
        yield
    finally:
        shutil.rmtree(ballast)


@pytest.mark.parametrize(
    ("only", "left"),
    [(only, 0), (only, 20 * PAGE), *((only_files, n) for n in (0, 1, 3, 6))],
)
def test_a_full_disk_leaves_the_older_checkpoint(disk, only, left, capfd):
    """Missing bytes are missed before anything is written, missing files while."""

    def state(step):
        return {"w": jnp.full(500, step, jnp.float32), "step": jnp.int32(step)}

    with Checkpoints(disk / "run") as checkpoints:
        checkpoints.save(1, state(1), {}, 0.5)
    before = contents(disk / "run")
    with Checkpoints(disk / "run") as checkpoints:
        with (
            only(left, disk),
            pytest.raises(InputError, match=rf"room .*{disk}/run.*again to resume"),
        ):
            checkpoints.save(2, state(2), {}, 0.6)
        assert checkpoints.restore(state(0)).step == 1
    assert contents(disk / "run") == before
    with Checkpoints(disk / "run") as checkpoints:
        checkpoints.save(2, state(2), {}, 0.6)
        np.testing.assert_array_equal(
            checkpoints.restore(state(0)).state["w"], state(2)["w"]
        )
    assert_no_leftovers(disk)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.slow
def test_training_goes_on_when_there_is_room_again(tiny_config, tmp_path, disk):
    cohort = preparation.prepare(tiny_config)
    tiny_config.train.checkpoint_every_steps = 4
    run = disk / "run"
    run.mkdir()
    with (
        only(100 * PAGE, disk),
        pytest.raises(InputError, match=f"no room .*{run}/checkpoints"),
    ):
        stages.train(tiny_config, cohort, run)
    for folder in (run, tmp_path / "undisturbed"):
        folder.mkdir(exist_ok=True)
        stages.train(tiny_config, cohort, folder)
    assert_no_leftovers(run)
    (step, resumed), (last, undisturbed) = (
        state_of(tiny_config, folder) for folder in (run, tmp_path / "undisturbed")
    )
    assert step == last == tiny_config.train.steps
    jax.tree.map(np.testing.assert_array_equal, resumed, undisturbed)
    logs = [f / "metrics.jsonl" for f in (run, tmp_path / "undisturbed")]
    assert logs[0].read_text() == logs[1].read_text()


def refused(config):
    """What a preparation stopped at: the name of a file, or a sentence; "" if done."""
    try:
        preparation.prepare(config)
    except OSError as error:
        return Path(error.filename).name
    except InputError as error:
        return str(error)
    return ""


def test_preparation_goes_on_when_there_is_room_again(tiny_config, disk):
    reference = preparation.prepare(tiny_config).path
    whole = contents(reference)
    tiny_config.data.prepared = str(disk / "prepared")
    folder, stops = disk / "prepared" / reference.name, []
    for pages in range(20, 100, 3):
        with only(pages * PAGE, disk):
            stops.append(refused(tiny_config))
        if not stops[-1]:
            break
        assert_no_leftovers(disk)
        for name, content in contents(folder).items():
            assert name.startswith("parts/") or content == whole[name]
        preparation.prepare(tiny_config)
        assert contents(folder) == whole
        shutil.rmtree(disk / "prepared")
    assert "preparing needs" in stops[0]
    assert any(name.endswith(".npz") for name in stops)
    assert {"images.npy", "labels.npy"} & {*stops}


def test_main_says_where_the_disk_is_full(start_main, disk, tiny_config):
    with only(27 * PAGE, disk):
        process = start_main("--stage=prepare", **{"data.prepared": f"{disk}/prepared"})
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert f"{disk}/prepared" in line
    assert "no space left; free some and run again" in line


@pytest.mark.slow
def test_prediction_goes_on_when_there_is_room_again(
    tiny_config, tmp_path, disk, capsys
):
    tiny_config.train.steps = tiny_config.train.validate_every_steps = 2
    run = tmp_path / "run"
    cohort = preparation.prepare(tiny_config)
    stages.train(tiny_config, cohort, run)
    stages.evaluate_run(tiny_config, cohort, run)

    def review(output):
        source = f"{tiny_config.data.root}/imagesTr"
        argv = ["--run", str(run), "--input", source, "--output", str(output)]
        with pytest.raises(SystemExit) as done:
            predict.main([*argv, "--review-fraction", "0.5"])
        return done.value.code

    def maps(output):
        return {k: v for k, v in contents(output).items() if k.endswith(".nii.gz")}

    undisturbed, output = tmp_path / "undisturbed", disk / "out"
    assert review(undisturbed) == 0
    capsys.readouterr()
    with only(20 * PAGE, disk):
        assert review(output) == 2
        errors = capsys.readouterr().err
        assert "Traceback" not in errors
        assert f"error: {output}" in errors
        assert "no space left; free some and run again" in errors
        assert_no_leftovers(output)
        assert not (output / "cases.csv").exists()  # nobody takes it for finished
        unfinished = output / "cases.unfinished.csv"
        done = cases_table.read_rows(unfinished, REVIEW_COLUMNS)
        assert 0 < len(done) < 6
        assert {row["status"] for row in done} <= {cases_table.OK, cases_table.EMPTY}
        assert maps(output).items() < maps(undisturbed).items()
    assert review(output) == 0
    assert maps(output) == maps(undisturbed)
    assert len(cases_table.read_rows(output / "cases.csv", REVIEW_COLUMNS)) == 6


def test_the_lock_says_who_holds_it_and_outlives_nobody(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from unc_jax.data import files\n"
        "with files.hold(Path(sys.argv[1]), 'the first'):\n"
        "    print('held', flush=True); time.sleep(100)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    root = Path(__file__).parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        who = f"the first, process {holder.pid} on {socket.gethostname()}, "
        written = (tmp_path / ".lock-holder").read_text()
        assert written.startswith(who)
        since = time.strptime(written.strip().removeprefix(who), "%Y-%m-%d %H:%M:%S %z")
        assert abs(time.mktime(since) + 0 - time.time()) < 24 * 3600
        refused = pytest.raises(InputError, match=re.escape(who))
        with refused, files.hold(tmp_path, "the second"):
            pass
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (tmp_path / ".lock-holder").read_text() == written  # the dead one's
        with files.hold(tmp_path, "the second"):
            assert (
                (tmp_path / ".lock-holder")
                .read_text()
                .startswith("the second, process")
            )
