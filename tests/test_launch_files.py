"""Files that launchers hand on: they name what exists, and hold no secrets."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
FILES = sorted(path.name for path in LAUNCH.iterdir() if path.is_file())
SHELL = sorted(p.name for p in LAUNCH.iterdir() if p.suffix in (".sh", ".sbatch"))
CLOUD = (
    "slurm.sbatch",
    "tpu_vm.sh",
    "gke.sh",
    "gke_job.yaml",
    "sky.yaml",
    "Dockerfile",
)
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|gh[pousr]_\w{36}|-----BEGIN|"
    r"(password|passwd|secret|token|api_?key|credential)\w*\s*[=:]",
    re.IGNORECASE,
)


def text_of(name):
    return (LAUNCH / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("script", SHELL)
def test_shell_syntax(script):
    subprocess.run(["bash", "-n", LAUNCH / script], check=True)


def test_shellcheck():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    scripts = [LAUNCH / name for name in SHELL]
    command = ["shellcheck", "--external-sources", "--shell=bash", *scripts]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_sky_job_is_spot_and_begins_again():
    task = yaml.safe_load(text_of("sky.yaml"))
    resources = task["resources"]
    assert resources["use_spot"] is True
    assert 143 in resources["job_recovery"]["recover_on_exit_codes"]
    assert not {2, 3} & {*resources["job_recovery"]["recover_on_exit_codes"]}
    assert task["file_mounts"]["/runs"]["source"] == "${RUNS}"
    assert '--workdir "/runs/$NAME"' in task["run"]
    used = {*re.findall(r"\$\{?([A-Z]+)", task["run"] + str(task["file_mounts"]))}
    assert used - {"HOME"} == set(task["envs"])


def test_dockerfile_builds_the_extras_that_exist():
    lines = text_of("Dockerfile").splitlines()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (case,) = [line for line in lines if line.startswith("RUN case")]
    offered = set(re.search(r"in ([\w|]+)\)", case)[1].split("|"))
    assert offered == {"cuda12", "cuda13", "tpu"}
    assert offered < set(extras["optional-dependencies"])
    assert "ARG EXTRA=cuda13" in lines
    for line in lines:
        if line.startswith("COPY"):
            assert all((ROOT / name).exists() for name in line.split()[1:-1]), line
    assert lines.index("USER unc") > next(
        number for number, line in enumerate(lines) if "pip install" in line
    )


@pytest.mark.parametrize("name", CLOUD)
def test_the_head_says_how_to_use_it(name):
    head = [line for line in text_of(name).splitlines() if line.startswith("# ")]
    assert head
    assert name == "gke_job.yaml" or any(name in line for line in head)


@pytest.mark.parametrize("name", FILES)
def test_what_is_named_exists_and_nothing_is_secret(name):
    text = text_of(name)
    for config in re.findall(r"configs/\w+\.py", text):
        assert (ROOT / config).is_file(), config
    for file in re.findall(r"launch/\w+\.(?:py|sh|sbatch|yaml)", text):
        assert (ROOT / file).is_file(), file
    for extra in re.findall(r"\.\[(\w+)\]", text):
        assert extra in ("cuda12", "cuda13", "tpu")
    assert not SECRET.search(text)


@pytest.mark.parametrize("name", CLOUD)
def test_flags_of_the_package_exist(name):
    """What launchers hand to unc_jax.main and launch/commands.py."""
    known = text_of("commands.py") + (ROOT / "unc_jax" / "main.py").read_text()
    for flag in ("workdir", "stage", "seeds", "python"):
        assert f"--{flag}" not in text_of(name) or f'{flag}"' in known, flag
    base = (ROOT / "configs" / "base.py").read_text()
    for field in re.findall(r"--config\.(\w+\.\w+)=", text_of(name)):
        assert f"config.{field}" in base or f"    {field} =" in base, field
