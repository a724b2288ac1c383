"""Members of an ensemble: runs of one config that differ only in the seed."""

from pathlib import Path
from typing import Any

from unc_jax import runtime
from unc_jax.config import Config, differences, flat_config, upgrade
from unc_jax.data import files
from unc_jax.errors import InputError
from unc_jax.segmentation.checkpoint import Checkpoints, folder_of
from unc_jax.study.run_folder import defining


def seeds_of(config: Config, cohort: str) -> list[int]:
    """Returns the seed of each network that samples come from; only reads.

    For a run without evaluate.members it is the run's own seed.

    cohort: fingerprint of the prepared cohort to be evaluated.

    Raises InputError for a member whose training is not finished, with another config,
    with another cohort (fold, split, images or preparation: it may have been trained on
    test cases of this one), or with the same seed as another member.
    """
    if not config.evaluate.members:
        return [config.seed]
    here = {**flat_config(config), "cohort": cohort}
    found: dict[int, str] = {}
    for member in config.evaluate.members:
        trained = _trained_under(config, files.expanded(member))
        if trained.get("cohort") != cohort:
            changed = differences(_of_data(trained), _of_data(here))
            raise InputError(
                f"{member} was trained on another split or other data, perhaps on test "
                f"cases of this evaluation ({'; '.join(changed)}); an ensemble's "
                "members share the fold and the split"
            )
        if changed := differences(_of_training(trained), _of_training(here)):
            raise InputError(
                f"{member} was trained under another config ({'; '.join(changed)}); an "
                "ensemble's members differ by the seed alone"
            )
        if (seed := trained["seed"]) in found:
            raise InputError(
                f"{found[seed]} and {member} are both of seed {seed}; an ensemble's "
                "members differ by the seed"
            )
        found[seed] = member
    return list(found)


def _trained_under(config: Config, folder: Path) -> dict[str, Any]:
    """Returns the flat config of the newest checkpoint, with its cohort."""
    where, trained, step = folder_of(folder, config.train.checkpoints), None, None
    # One answer for all processes: another one may be creating the folder now.
    if runtime.broadcast(where.is_dir()):
        with Checkpoints(where, read_only=True) as checkpoints:
            trained, step = checkpoints.started_under(), checkpoints.latest_step()
    if trained is None or step is None:
        raise InputError(f"{folder} holds no trained model; run --stage train first")
    trained.pop("precision", None)  # weights are float32 on any device
    trained = upgrade(trained)
    if step < (steps := trained["train.steps"]):
        raise InputError(
            f"{folder} is trained for {step} of its {steps} updates; finish it by "
            "--stage train first"
        )
    return trained


def _of_training(fields: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields that affect the weights, without the seed and the data."""
    return {
        name: value
        for name, value in defining(fields).items()
        if not name.startswith(("evaluate.", "data.", "cohort"))
    }


def _of_data(fields: dict[str, Any]) -> dict[str, Any]:
    names = ("data.", "cohort")
    aside = ("data.root", "data.prepared")
    return {k: v for k, v in fields.items() if k.startswith(names) and k not in aside}
