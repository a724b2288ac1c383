"""Folders of runs and outputs: what tests look at in them."""

import time


def contents(folder):
    """Bytes of every file, by its path below the folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def state_of(config, run):
    """Step and state of the newest checkpoint."""
    # Here: processes that tests spawn import this file too, and need none of it.
    import jax

    from unc_jax.segmentation.checkpoint import Checkpoints
    from unc_jax.segmentation.models import build_model
    from unc_jax.segmentation.train import empty_state

    with Checkpoints(run / "checkpoints") as checkpoints:
        restored = checkpoints.restore(empty_state(config, build_model(config)))
        return restored.step, jax.device_get(restored.state)


def steps_saved(run):
    names = [path.name for path in (run / "checkpoints").glob("step_????????")]
    return [int(name[5:]) for name in names]


def wait_for_step(run, step, *processes):
    """Until a checkpoint of at least `step` is there; the processes must still run."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if any(saved >= step for saved in steps_saved(run)):
            return
        for process in processes:
            assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError(f"no checkpoint of step {step}")
