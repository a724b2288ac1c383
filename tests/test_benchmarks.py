"""The benchmark for GPUs runs every part, and ends when its time is up."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.gpu.__main__ import PARTS

ROOT = Path(__file__).parents[1]


def run_toy(folder, seconds, *words):
    """Exit code, what was printed, and the rows of gpu.json."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--toy"]
    command += ["--seconds", str(seconds), "--output", str(folder), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr
    return done.returncode, done.stdout, json.loads((folder / "gpu.json").read_text())


@pytest.mark.slow
def test_every_part_runs_at_toy_sizes(tmp_path):
    code, printed, rows = run_toy(tmp_path, 900)
    failed = [row for row in rows if row.get("failed")]
    assert not failed, (failed, (tmp_path / "log.txt").read_text()[-3000:])
    assert code == 0
    left_out = [row for row in rows if row.get("left_out")]
    assert all("PyTorch" in row["told"] for row in left_out)
    done = {row["part"] for row in rows if not row.get("left_out")}
    assert done >= PARTS.keys() - {"rivals", "more rivals"}  # which are PyTorch's
    table = (tmp_path / "gpu.md").read_text()
    assert all(row["told"] in table and row["told"] in printed for row in rows)
    assert "training steps" in (tmp_path / "kernels.txt").read_text()


def test_it_ends_when_its_time_is_up_and_says_what_it_left_out(tmp_path):
    started = time.monotonic()
    code, printed, rows = run_toy(tmp_path, 2, "--only", "samples", "layers")
    assert time.monotonic() - started < 30
    assert code == 0
    assert all(row.get("left_out") for row in rows)
    assert {row["part"] for row in rows} == {"samples", "layers"}
    assert "stopped, its time was up" in printed
    assert "layers: left out: no time" in printed
