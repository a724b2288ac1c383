"""The package imports where the parts of Python that only Unix has are missing."""

import subprocess
import sys
from pathlib import Path

CODE = """
import os, sys
from pathlib import Path
import asyncio, psutil  # their parts for Linux take them
sys.modules["fcntl"] = sys.modules["resource"] = None  # importing them fails
del os.sched_getaffinity, os.sysconf, os.fork
import signal
del signal.SIGKILL

import importlib, pkgutil
import unc_jax
for module in pkgutil.walk_packages(unc_jax.__path__, "unc_jax."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)

from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.segmentation.devices import memory_bytes
folder = Path(sys.argv[1])
with files.hold(folder, "the first"):
    files.write_text(folder / "text", "whole")
    try:
        with files.hold(folder, "the second"):
            raise AssertionError("held twice")
    except InputError as error:
        assert "the first, process" in str(error)
assert memory_bytes() > 0
"""


def test_the_package_needs_nothing_of_unix(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
