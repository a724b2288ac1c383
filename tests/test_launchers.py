"""Launchers: what they would run, and that they run what they print."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LAUNCH = ROOT / "launch"
RUN = ("--config", "configs/liver_large_wcc.py", "--config.data.window_hu=(1, 2)")
TPU = ("--name", "unc", "--zone", "z", "--type", "v6e-8", "--bucket", "gs://B")
GKE = ("--image", "IMAGE", "--claim", "CLAIM", "--processes", "2")


def launch(script, *words, **changes):
    """The finished process of a launcher, in the repository's root."""
    environment = {**os.environ, "PYTHON": sys.executable, "POLL_S": "0", **changes}
    return subprocess.run(
        ["bash", str(LAUNCH / script), *map(str, words)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.fixture
def fake(tmp_path):
    """Puts a program of a name first on PATH; its calls are lines of calls.txt."""
    calls = tmp_path / "calls.txt"
    calls.touch()

    def install(name, body):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        note = f'printf "%q " {name} "$@" | sed "s/ $//" >> {calls}; echo >> {calls}\n'
        path.write_text(f"#!/bin/bash\n{note}{body}\n")
        path.chmod(0o755)
        return {"PATH": f"{path.parent}:{os.environ['PATH']}"}

    install.calls = lambda: calls.read_text().splitlines()
    return install


@pytest.mark.parametrize(
    ("script", "words", "reason"),
    [
        ("slurm.sbatch", ("--dry-run", "/data"), "behind --"),
        ("tpu_vm.sh", ("--name", "unc", "--dry-run"), "--zone is missing"),
        ("tpu_vm.sh", (*TPU, "--dry-run", "--"), "behind --"),
        ("tpu_vm.sh", (*TPU, "destroy"), "stray argument destroy"),
        ("gke.sh", ("--image", "I", "--dry-run"), "--claim is missing"),
        ("gke.sh", (*GKE, "--", "W"), "behind --"),
    ],
)
def test_mistakes_are_one_line(script, words, reason):
    done = launch(script, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert reason in done.stderr
    assert done.stderr.count("\n") == 1


STUDY = ("--partition=gpu", "--", "/my data", "--seeds", "0", "1")


def test_slurm_submits_setup_runs_and_comparison(fake):
    changes = fake("sbatch", "echo $$")
    shown = launch("slurm.sbatch", "--dry-run", *STUDY, **changes).stdout
    assert not fake.calls()
    ours = r"launch/slurm.sbatch /my\ data --seeds 0 1 --stage"
    start, alone = "sbatch --parsable --partition=gpu", "--nodes=1 --ntasks-per-node=1"
    assert shown.splitlines() == [
        f"setup=$({start} {alone} {ours} setup)",
        f"runs=$({start} --dependency=afterok:$setup --array=1-12 {ours} runs)",
        f"{start} {alone} --dependency=afterok:$runs {ours} compare",
    ]
    assert launch("slurm.sbatch", *STUDY, **changes).returncode == 0
    for call, line in zip(fake.calls(), shown.splitlines(), strict=True):
        pattern = re.escape(re.sub(r"^\w+=\$\((.*)\)$", r"\1", line))
        assert re.fullmatch(re.sub(r"\\\$(setup|runs)", r"\\d+", pattern), call)


def test_slurm_submits_a_single_run(fake):
    changes = fake("sbatch", "")
    shown = launch("slurm.sbatch", "--dry-run", "--", *RUN, **changes).stdout
    launch("slurm.sbatch", "--", *RUN, **changes)
    assert fake.calls() == shown.splitlines()
    assert shlex.split(shown) == ["sbatch", "--parsable", "launch/slurm.sbatch", *RUN]


@pytest.mark.parametrize(("code", "requeued"), [(0, 0), (143, 1), (2, 0)])
def test_a_slurm_job_runs_its_line_and_queues_again_when_stopped(fake, code, requeued):
    fake("scontrol", "")
    changes = fake("srun", f"exit {code}")
    job = {"SLURM_JOB_ID": "7", "SLURM_SUBMIT_DIR": str(ROOT), **changes}
    words = (*STUDY[2:], "--stage", "runs")
    done = launch("slurm.sbatch", *words, SLURM_ARRAY_TASK_ID="8", **job)
    assert done.returncode == code
    ran = shlex.split(fake.calls()[0])
    assert ran[:4] == ["srun", "--kill-on-bad-exit=1", "bash", "-c"]
    lines = subprocess.run(
        [sys.executable, "launch/commands.py", *words, "--python", sys.executable],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert ran[4] == f"exec {lines[7]}"
    assert fake.calls()[1:] == ["scontrol requeue 7"] * requeued


def test_a_slurm_job_of_several_tasks_is_one_distributed_run(fake):
    changes = fake("srun", "")
    job = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", **changes}
    assert launch("slurm.sbatch", *RUN, **job).returncode == 0
    command = shlex.split(shlex.split(fake.calls()[0])[-1])
    assert command[2:] == ["-m", "unc_jax.main", *RUN, "--distributed"]


def test_slurm_signals_the_tasks_with_notice():
    head = (LAUNCH / "slurm.sbatch").read_text()
    options = re.findall(r"^#SBATCH (.*)", head, re.MULTILINE)
    assert {"--signal=TERM@60", "--requeue", "--open-mode=append"} <= {*options}


# Takes the first word of a file, and leaves the last one there for ever.
TPU_STATE = """
next() {{
  read -r words < {folder}/$1
  echo ${{words%% *}}
  echo ${{words#* }} > {folder}/$1
}}
case "$*" in
  *describe*) next states ;;
  *"cat exit_code"*) next codes ;;
esac
"""


def tpu_calls(fake, folder, codes, states="ACTIVE"):
    """Exit code and calls of gcloud, while runs end with `codes` in turn."""
    (folder / "codes").write_text(codes + "\n")
    (folder / "states").write_text(states + "\n")
    changes = fake("gcloud", TPU_STATE.format(folder=folder))
    fake("mkdir", "")
    done = launch("tpu_vm.sh", *TPU, "--spot", "--", *RUN, **changes)
    asked = ("queued-resources describe", "cat\\ exit_code")
    return done.returncode, [c for c in fake.calls() if not any(a in c for a in asked)]


def test_tpu_vm_runs_what_it_shows(fake, tmp_path):
    changes = fake("gcloud", "")
    shown = launch("tpu_vm.sh", *TPU, "--spot", "--dry-run", "--", *RUN, **changes)
    assert shown.returncode == 0
    assert not fake.calls()
    lines = [line for line in shown.stdout.splitlines() if line[0] != "#"]
    assert tpu_calls(fake, tmp_path, "0") == (0, lines)
    create, *_, train, _, fetch, delete = map(shlex.split, lines)
    assert "--accelerator-type=v6e-8" in create
    assert "--spot" in create
    assert fetch[-2:] == ["gs://B/runs/unc", "runs/unc"]
    assert delete[-2:] == ["--force", "--quiet"]
    command = re.search(r"python (-m unc_jax.main .*) \|\|", lines[-4])
    assert "--worker=all" in train
    assert command
    assert " --distributed --workdir ~/bucket/runs/unc " in command[1]


@pytest.mark.parametrize(
    ("codes", "states", "created", "ending"),
    [
        ("143 0", "ACTIVE", 2, 0),
        ("143 143 3", "WAITING_FOR_RESOURCES ACTIVE", 3, 3),
        ("gone 2", "ACTIVE SUSPENDED ACTIVE", 2, 2),
        ("134 0", "ACTIVE SUSPENDED ACTIVE", 2, 0),
        ("0", "SUSPENDED ACTIVE", 2, 0),
        ("1", "ACTIVE", 1, 1),
        ("gone", "ACTIVE", 1, 1),
    ],
)
def test_tpu_vm_begins_again_after_preemption_alone(
    fake, tmp_path, codes, states, created, ending
):
    code, calls = tpu_calls(fake, tmp_path, codes, states)
    assert code == ending
    assert sum("queued-resources create" in call for call in calls) == created
    assert sum("queued-resources delete" in call for call in calls) == created
    assert sum("runs/unc runs/unc" in call for call in calls) == 1


def test_tpu_vm_does_single_steps(fake):
    changes = fake("gcloud", "")
    assert launch("tpu_vm.sh", *TPU, "delete", "--", *RUN, **changes).returncode == 0
    command = "gcloud compute tpus queued-resources delete unc --zone=z --force --quiet"
    assert fake.calls() == [command]


def manifest(*words):
    text = launch("gke.sh", *GKE, "--dry-run", *words, "--", *RUN, 'a"\\b&').stdout
    assert not re.search("@[A-Z]+@", text)
    return {part["kind"]: part for part in yaml.safe_load_all(text)}


def test_gke_manifest():
    parts = manifest("--name", "liver", "--gpus", "4")
    service, job = parts["Service"], parts["Job"]["spec"]
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == {"job-name": "liver"}
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == 2
    rules = {
        tuple(rule["onExitCodes"]["values"]): rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule
    }
    assert rules == {(2, 3): "FailJob", (130, 143): "Ignore"}
    pod = job["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] >= 30
    assert pod["restartPolicy"] == "Never"  # a failure policy needs it
    assert pod["subdomain"] == service["metadata"]["name"] == "liver"
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    (run,) = pod["containers"]
    assert run["command"][:3] == ["python", "-m", "unc_jax.main"]
    assert run["args"] == [*RUN, 'a"\\b&']
    assert run["resources"]["limits"] == {"nvidia.com/gpu": 4}
    values = {entry["name"]: entry.get("value") for entry in run["env"]}
    assert values == {
        "JAX_COORDINATOR_ADDRESS": "liver-0.liver:8476",
        "JAX_NUM_PROCESSES": "2",
        "JAX_PROCESS_ID": None,
    }
    assert "job-completion-index" in str(run["env"])
    labels = manifest("--on-demand")["Job"]["spec"]["template"]["spec"]["nodeSelector"]
    assert labels == {"cloud.google.com/gke-accelerator": "nvidia-l4"}


def test_gke_applies_what_it_shows(fake, tmp_path):
    changes = fake("kubectl", f"cat > {tmp_path}/applied")
    shown = launch("gke.sh", *GKE, "--dry-run", "--", *RUN, **changes).stdout
    assert not fake.calls()
    assert launch("gke.sh", *GKE, "--", *RUN, **changes).returncode == 0
    assert fake.calls() == ["kubectl apply -f -"]
    assert shown.split("\n", 1)[1] == (tmp_path / "applied").read_text()
