"""The fields of a run's configuration, as functions take them and as JSON."""

from typing import Any, TypeAlias

from ml_collections import ConfigDict

# A ConfigDict, whose fields no type checker can know.
Config: TypeAlias = Any


def flat_config(config: Config) -> dict[str, Any]:
    """Dotted field names to JSON values, e.g. {"train.batch": 8}."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            flat |= {f"{name}.{key}": leaf for key, leaf in flat_config(value).items()}
        else:
            flat[name] = _as_json(value)
    return flat


def _as_json(value: Any) -> Any:
    return [_as_json(item) for item in value] if isinstance(value, tuple) else value
