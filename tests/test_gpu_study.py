"""The study in slices: what fits into the time, what is packed, and that it goes on."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from test_compare import write_run

from launch import gpu_stages, gpu_study, study_archive
from unc_jax.errors import InputError

ROOT = Path(__file__).parents[1]


class Clock:
    """Stages that take 10 s each, the clock that shows it, and what was run."""

    def __init__(self, codes=()):
        self.time, self.codes, self.limits = 100.0, dict(codes), {}

    def now(self):
        return self.time

    def run(self, stage, seconds):
        self.limits[stage.model or stage.kind] = seconds
        self.time += min(10, seconds)
        return self.codes.get(stage.model, 0)


def plan(clock, times, *, seconds, expected=lambda kind: 10):
    todo = [
        gpu_stages.Stage("draw", ["d"]),
        *(gpu_stages.Stage("model", ["m"], name) for name in ("a", "b", "c")),
    ]
    return gpu_stages.run_stages(
        todo,
        "a card",
        times,
        deadline=clock.now() + seconds,
        expected=expected,
        run=clock.run,
        finished=lambda: None,
        now=clock.now,
    )


SPARE = gpu_stages.SAVING_S + gpu_stages.PACKING_S


def test_what_does_not_fit_is_not_begun():
    clock, times = Clock(), []
    reason = plan(clock, times, seconds=SPARE + 35)
    assert reason == "c needs about 10 s of 5 s"
    assert clock.limits == {"draw": 35, "a": 25, "b": 15}
    assert [one["name"] for one in times] == ["draw", "a", "b"]
    assert times[1] == {
        **{"kind": "model", "name": "a", "seconds": 10, "done": True},
        "machine": "a card",
    }


def test_a_model_that_failed_does_not_stop_the_others():
    clock, times = Clock({"a": 3}), []
    plan(clock, times, seconds=SPARE + 100)
    assert [one["done"] for one in times] == [True, False, True, True]


def test_a_model_stopped_for_want_of_time_is_the_last():
    clock, times = Clock({"a": 143}), []
    reason = plan(clock, times, seconds=SPARE + 15, expected=lambda kind: 1)
    assert reason == "a ended with exit code 143"
    assert list(clock.limits) == ["draw", "a"]


def test_expected_is_a_little_more_than_was_measured():
    times = [
        {"kind": "model", "seconds": 120.0, "done": True},  # it compiled
        {"kind": "model", "seconds": 90.0, "done": True},
        {"kind": "model", "seconds": 500.0, "done": False},
    ]
    assert gpu_stages.expected_seconds("model", times, False) == pytest.approx(99)
    assert gpu_stages.expected_seconds("draw", times, False) == 60
    times = [{"kind": "draw", "seconds": s, "done": True} for s in (40.0, 2.0)]
    assert gpu_stages.expected_seconds("draw", times, False) == pytest.approx(44)


def test_a_stage_that_takes_too_long_is_stopped(tmp_path):
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "print('begun', flush=True); time.sleep(60)"
    )
    stage = gpu_stages.Stage("model", [sys.executable, "-c", program], "a")
    started = time.monotonic()
    assert gpu_stages.run_command(stage, 2, tmp_path / "log.txt") == 143
    assert time.monotonic() - started < 20
    assert "begun" in (tmp_path / "log.txt").read_text()


def write_finished(folder):
    write_run(folder, panels=True)
    (folder / "table.md").write_text("| a |\n")
    return folder


def test_stages_are_those_of_unfinished_models(tmp_path):
    write_finished(tmp_path / "runs" / "liver_large_wcc")
    options = Namespace(work=tmp_path, toy=True, cases=12)
    found = gpu_stages.stages(options)
    assert [stage.model or stage.kind for stage in found] == [
        *("draw", "prepare", "liver_large_dice", "liver_small_wcc"),
        *("liver_small_dice", "prepare", "tumor_large_wcc", "tumor_large_dice"),
    ]
    # Else they would be one model, and no table could hold both.
    assert found[2].command[-1] != found[3].command[-1]


def filled(work):
    for name in ("liver_large_wcc", "liver_large_dice", "liver_small_wcc"):
        run = write_finished(work / "runs" / name)
        (run / "checkpoints" / "5").mkdir(parents=True)
        (run / "checkpoints" / "5" / "weights").write_bytes(bytes(1000))
        noise = np.random.default_rng(len(name)).bytes(20_000)
        (run / "report.html").write_bytes(noise)
    (run / "table.md").unlink()  # of the third: not finished
    (work / study_archive.TIMES).write_text("{}")
    return gpu_stages.ORDER


def test_finished_models_are_packed_without_weights(tmp_path):
    models = filled(tmp_path / "work")
    archive = tmp_path / "out" / "study.tar.xz"
    assert study_archive.pack(tmp_path / "work", archive, models, max_bytes=1e6) == []
    study_archive.unpack(archive, tmp_path / "again")
    names = {p.name for p in (tmp_path / "again" / "runs").iterdir()}
    assert names == {"liver_large_wcc", "liver_large_dice"}
    for name in names:
        run, again = (tmp_path / w / "runs" / name for w in ("work", "again"))
        assert not (again / "checkpoints").exists()
        assert study_archive.is_finished(again)
        for file in ("cases.csv", "config.json", "report.html"):
            assert (again / file).read_bytes() == (run / file).read_bytes()
        # Slices of the best, the median and the worst test case.
        assert len(list((run / "panels").iterdir())) > 3
        assert len(list((again / "panels").iterdir())) == 3
    assert len({*map(slices, (tmp_path / "again" / "runs").iterdir())}) == 1


def slices(run):
    return tuple(sorted(path.name for path in (run / "panels").iterdir()))


def test_an_archive_keeps_its_size(tmp_path):
    models = filled(tmp_path / "work")
    archive = tmp_path / "study.tar.xz"
    left_out = study_archive.pack(tmp_path / "work", archive, models, max_bytes=30_000)
    assert left_out[0] == "report.html"
    assert archive.stat().st_size <= 30_000
    before = archive.read_bytes()
    with pytest.raises(InputError, match="tables alone"):
        study_archive.pack(tmp_path / "work", archive, models, max_bytes=100)
    assert archive.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_broken_archive_is_one_line(tmp_path):
    path = tmp_path / "study.tar.xz"
    path.write_bytes(b"half")
    with pytest.raises(InputError, match="cannot be unpacked"):
        study_archive.unpack(path, tmp_path / "work")


def test_an_archive_of_another_cohort_is_not_unpacked(tmp_path, capsys):
    models, archive = filled(tmp_path / "work"), tmp_path / "study.tar.xz"
    times = json.dumps({"cohort": {"cases": 12, "toy": True}})
    (tmp_path / "work" / study_archive.TIMES).write_text(times)
    study_archive.pack(tmp_path / "work", archive, models, max_bytes=1e6)
    flags = ["--toy", "--cases=11", "--seconds=60", f"--archive={archive}"]
    with pytest.raises(SystemExit) as done:
        gpu_study.main([*flags, f"--output={tmp_path / 'new'}"])
    assert done.value.code == 2
    said = capsys.readouterr().err
    assert f"{archive} is of the study of {{'cases': 12" in said
    assert not list(tmp_path.glob("new/**/runs"))


def call(output, *words):
    """Starts the study; what it prints goes to OUTPUT.txt."""
    words = ("--toy", "--output", output, *words)
    with open(output.with_suffix(".txt"), "w") as file:
        return subprocess.Popen(
            ["bash", str(ROOT / "launch" / "gpu_study.sh"), *map(str, words)],
            env={**os.environ, "PYTHON": sys.executable, "JAX_PLATFORMS": "cpu"},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


@pytest.mark.slow
def test_a_killed_study_goes_on_from_its_archive(tmp_path):
    archive, whole = (tmp_path / name / "study.tar.xz" for name in "ab")
    first = call(tmp_path / "a", "--seconds", 900)
    while first.poll() is None and not tables(archive):
        time.sleep(0.2)
    os.killpg(first.pid, signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL
    kept = tables(archive)
    assert 0 < len(kept) < 6
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "kept", kept, filter="data")
    second = call(tmp_path / "b", "--seconds", 900, "--archive", archive)
    assert second.wait() == 0
    assert "6 of 6 models" in (tmp_path / "b.txt").read_text()
    for one in kept:  # seconds too, so it was not made again
        again = tmp_path / "b" / "work" / one.name
        assert again.read_bytes() == (tmp_path / "kept" / one.name).read_bytes()
    assert len(tables(whole)) == 6
    other = call(tmp_path / "c", "--seconds", 60, "--archive", whole, "--cases", 11)
    assert other.wait() == 2
    assert "not of {'cases': 11" in (tmp_path / "c.txt").read_text()


def tables(archive):
    """The cases.csv in an archive, as its members."""
    if not archive.exists():
        return []
    with tarfile.open(archive) as tar:
        return [one for one in tar if one.name.endswith("cases.csv")]
