import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

# Before JAX reads them: most of what the tests take is compiling. Code for volumes this
# small need not be optimised, and every program is compiled once for all workers of
# this run of the tests and for the processes that they start.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    if metadata.version("jaxlib").startswith("0.10."):  # later ones stop at this flag
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _programs = tempfile.mkdtemp(prefix="programs_of_tests_")
    atexit.register(shutil.rmtree, _programs, ignore_errors=True)
    os.environ |= {
        "JAX_COMPILATION_CACHE_DIR": _programs,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES": "none",
    }

import jax
import pytest

from configs import base
from unc_jax import preparation, stages
from unc_jax.config import flat_config
from unc_jax.data.phantom import draw_cohort

# A silent broadcast between ranks is how a loss or a measure goes wrong unseen.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real scans, beside the repository or where UNC_REAL_DATA says."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("UNC_REAL_DATA", beside))
    if not folder.is_dir():
        pytest.skip(f"no real scans at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory) -> Path:
    """A synthetic Decathlon set of six cases of at most 24 voxels a side."""
    root = tmp_path_factory.mktemp("tiny") / "Task"
    draw_cohort.write_cohort(root, cases=6, seed=0, size=(24, 24, 24), raters=2)
    return root


@pytest.fixture
def tiny_config(tiny_task, tmp_path):
    """A run of seconds: two levels of two channels on 16 x 16 x 8 voxels."""
    return _tiny_config(tiny_task, tmp_path)


@pytest.fixture(scope="session")
def tiny_run(tiny_task, tmp_path_factory) -> Path:
    """Folder of an evaluated run of the tiny config, for reading only."""
    folder = tmp_path_factory.mktemp("tiny_run")
    config = _tiny_config(tiny_task, folder)
    cohort = preparation.prepare(config)
    run = folder / "runs" / "demo"
    stages.train(config, cohort, run)
    stages.evaluate_run(config, cohort, run)
    return run


def _tiny_config(task: Path, folder: Path):
    config = base.get_config()
    config.data.root = str(task)
    config.data.prepared = str(folder / "prepared")
    config.data.shape = (16, 16, 8)
    config.model.features = 2
    config.model.depth = 2
    config.model.dropout_rate = 0.3
    config.train.patch_shape = (8, 8, 4)
    config.train.batch = 2
    config.train.steps = 8
    config.train.steps_per_call = 2
    config.train.validate_every_steps = 4
    config.train.checkpoint_every_steps = 2
    config.train.learning_rate = 1e-2
    config.evaluate.samples = 4
    config.evaluate.bootstrap = 100
    return config


@pytest.fixture
def start_main(tiny_config, tmp_path):
    """Starts `python -m unc_jax.main` on the tiny config, in a process of its own.

    Variables in `environment` are added to those of this one.
    """
    root = Path(__file__).parents[1]

    def start(
        *flags: str, workdir: str = "run", environment=None, **changes
    ) -> subprocess.Popen:
        fields = {**flat_config(tiny_config), **changes}
        default = flat_config(base.get_config())
        overrides = [
            f"--config.{name}={_as_flag(value)}"
            for name, value in fields.items()
            if value != default[name]
        ]
        command = [sys.executable, "-m", "unc_jax.main", "--config", "configs/base.py"]
        return subprocess.Popen(
            [*command, "--workdir", str(tmp_path / workdir), *overrides, *flags],
            cwd=root,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def _as_flag(value) -> str:
    return str(tuple(value)) if isinstance(value, list) else str(value)
