"""Conversion of a run's configuration to JSON and back, across versions.

configs/base.py defines the fields with their defaults and meanings.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

from ml_collections import ConfigDict

from configs import base
from unc_jax.errors import InputError

# A ConfigDict, whose fields a type checker does not know.
Config: TypeAlias = Any

# Format of run folders, stored in config.json; folders without one are older. Increase
# it when older programs would read new folders wrongly.
FORMAT = 1
# Removed fields of earlier versions; run folders that contain them stay readable.
_DELETED = ("evaluate.halo",)
# Fields that earlier versions lack, with the value that those versions used.
_ADDED = {
    "model.name": "unet3d",
    "data.split_shares": [63, 13, 55],
    "data.fold": -1,
    "data.folds": 5,
}
# Separate seeds, for which earlier versions used the run's seed.
_SEEDS = ("data.split_seed", "data.phantom_seed")


def flat_config(config: Config) -> dict[str, Any]:
    """Returns the fields as {"train.batch": 8, ...}: dotted names and JSON values."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{key}": leaf for key, leaf in flat_config(value).items()}
        else:
            flat[name] = _as_json(value)
    return flat


def stored_config(config: Config) -> dict[str, Any]:
    """Returns the content of config.json: the format and the flat config."""
    return {"format": FORMAT, **flat_config(config)}


def check_format(fields: dict[str, Any], path: object) -> None:
    """Raises InputError for stored fields of a newer format; older formats pass.

    path: file of the fields, for the message.
    """
    found = fields.get("format", 0)
    if not isinstance(found, int) or found > FORMAT:
        raise InputError(
            f"{path}: a run folder of format {found!r}, newer than this version of "
            f"unc_jax, which reads formats up to {FORMAT}; install a newer one"
        )


def from_flat(fields: dict[str, Any], path: Path) -> Config:
    """Returns the config of stored fields; missing fields get their defaults.

    path: file of the fields, for messages. Raises InputError when they are not fields
    of this version.
    """
    config = base.get_config()
    if isinstance(fields, dict):
        check_format(fields, path)
    try:
        config.update_from_flattened_dict(
            {name: _as_tuple(value) for name, value in upgrade(fields).items()}
        )
        check_fields(config)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is no config of this version: {reason}") from None
    return config


def upgrade(fields: dict[str, Any]) -> dict[str, Any]:
    """Converts stored fields of any version to the names of this version."""
    aside = ("format", *_DELETED)
    kept = {name: value for name, value in fields.items() if name not in aside}
    return {**_ADDED, **dict.fromkeys(_SEEDS, kept.get("seed", 0)), **kept}


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Returns "field: old -> new" for every field that differs, sorted by name."""
    return [
        f"{name}: {_word(old, name)} -> {_word(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def _word(fields: dict[str, Any], name: str) -> str:
    text = json.dumps(fields[name]) if name in fields else "none"
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_fields(config: Config) -> None:
    """Raises one InputError that names every unknown and every missing field."""
    errors = list(_unknown_fields(config, base.get_config()))
    if errors:
        raise InputError("config: " + "; ".join(errors))


def _unknown_fields(config: Config, known: Config, prefix: str = "") -> Iterator[str]:
    for name in sorted(set(config) ^ set(known)):
        where = "is unknown" if name in config else "is missing"
        yield f"field {prefix}{name} {where}"
    for name in sorted(set(config) & set(known)):
        if isinstance(known[name], ConfigDict):
            yield from _unknown_fields(config[name], known[name], f"{prefix}{name}.")


def _as_json(value: Any) -> Any:
    return [_as_json(item) for item in value] if isinstance(value, tuple) else value


def _as_tuple(value: Any) -> Any:
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value
