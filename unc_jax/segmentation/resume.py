"""Check whether a training can be resumed: which config fields may change."""

from pathlib import Path
from typing import Any

from unc_jax import runtime
from unc_jax.config import Config, check_format, differences, flat_config, upgrade
from unc_jax.errors import InputError
from unc_jax.segmentation.checkpoint import Checkpoints, folder_of
from unc_jax.segmentation.models import precision_of

# Fields that a resumed run may change: completed updates do not depend on them.
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
    """Returns the newest saved step, None without one; reads files only.

    cohort: fingerprint of the prepared cohort; None is not compared. to_train: also
    check that training can go on from the newest step to train.steps. Raises InputError
    when it cannot, or when the run was started with another config or cohort, or in
    another precision.
    """
    folder = folder_of(workdir, config.train.checkpoints)
    # One answer for all processes: another one may be creating the folder now.
    if not runtime.broadcast(folder.is_dir()):
        return None
    with Checkpoints(folder, read_only=True) as checkpoints:
        then, latest = checkpoints.started_under(), checkpoints.latest_step() or 0
    if then is None:
        return None
    check_format(then, folder)
    now = {**flat_config(config), "cohort": cohort or then["cohort"]}
    here, begun = precision_of(config), then.pop("precision", None)
    check_same(now, upgrade(then))
    if to_train and latest < config.train.steps and begun not in (None, here):
        raise InputError(
            f"this run was trained in {begun} and would go on in {here} on this device "
            f"(model.compute_dtype); resume it on a device that computes in {begun}"
        )
    if to_train and latest > config.train.steps:
        raise InputError(
            f"this run has {latest} steps (train.steps: {latest} -> "
            f"{config.train.steps}); set it back, or choose another --workdir"
        )
    per_call = config.train.steps_per_call
    if to_train and latest < config.train.steps and latest % per_call:
        raise InputError(
            f"this run has {latest} steps, no multiple of train.steps_per_call "
            f"({per_call}); set it to one that divides {latest}"
        )
    return latest


def check_same(now: dict[str, Any], then: dict[str, Any]) -> None:
    """Raises InputError that names the fields in which two flat configs differ.

    Fields that no completed update depends on may differ; train.steps too, unless the
    schedule is "cosine", which ends there.
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
            "set these back to resume it, or choose another --workdir"
        )
