"""Check of a started training: which fields may change before it goes on."""

from pathlib import Path
from typing import Any

from unc_jax import runtime
from unc_jax.config import Config, check_format, differences, flat_config, upgrade
from unc_jax.errors import InputError
from unc_jax.segmentation.checkpoint import Checkpoints, folder_of

# Fields that a resumed run may change: they touch no update that was made.
_FREE_FIELDS = (
    "evaluate.",
    "data.",  # the cohort's fingerprint is compared instead
    "train.steps",  # and steps_per_call; not under a cosine schedule
    "train.residence",
    "train.validate_every_steps",
    "train.checkpoint_every_steps",
    "train.checkpoints",  # may have been moved
)


def check_resumable(
    config: Config, cohort: str | None, workdir: Path, *, to_train: bool = True
) -> int | None:
    """Returns the newest step saved, None when there is none; only reads.

    Raises InputError when the run was started under another config.
    cohort: fingerprint of the prepared cohort; None: of any. to_train: also the number
    of steps must be one that training can go on to.
    """
    folder = folder_of(workdir, config.train.checkpoints)
    # One answer for all: another process may just be making the folder.
    if not runtime.broadcast(folder.is_dir()):
        return None
    with Checkpoints(folder, read_only=True) as checkpoints:
        then, latest = checkpoints.started_under(), checkpoints.latest_step() or 0
    if then is None:
        return None
    check_format(then, folder)
    now = {**flat_config(config), "cohort": cohort or then["cohort"]}
    check_same(now, upgrade(then))
    if to_train and latest > config.train.steps:
        raise InputError(
            f"this run has {latest} steps (train.steps: {latest} -> "
            f"{config.train.steps}); set it back, or choose another --workdir"
        )
    return latest


def check_same(now: dict[str, Any], then: dict[str, Any]) -> None:
    """Raises InputError that names the fields in which two flat configs differ.

    Fields that touch no update are free. So is train.steps, unless a schedule ends
    there.
    """
    free = _FREE_FIELDS
    if now.get("cohort") != then.get("cohort"):
        free = tuple(name for name in free if name != "data.")
    changed = [
        one
        for one in differences(then, now)
        if not one.startswith(free)
        or (one.startswith("train.steps:") and now.get("train.schedule") == "cosine")
    ]
    if changed:
        raise InputError(
            f"this run was started under another config ({'; '.join(changed)}); "
            "set these back to go on with it, or choose another --workdir"
        )
