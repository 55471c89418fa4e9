"""From the command line, a file or Python to a checked configuration object, and back to YAML."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

from xlstm_rl.config.choice import choose_variants
from xlstm_rl.config.errors import ConfigError, one_line
from xlstm_rl.config.fields import (
    Chosen,
    Setting,
    find_fields,
    own_fields,
    settings_from_args,
    settings_from_mapping,
)
from xlstm_rl.config.yaml_file import load_yaml

ConfigT = TypeVar("ConfigT")


def parse_config(
    cls: type[ConfigT],
    args: Sequence[str] = (),
    file: Mapping[str, Any] | str | Path | None = None,
) -> ConfigT:
    """A configuration from its defaults, a file, and the words of a command line, later ones win.

    Args:
        cls: A dataclass; its fields may be dataclasses too, one per section.
        args: Flags such as `--env.num-envs 16`, without the program's name.
        file: A YAML file, or the mapping it would hold.

    Raises:
        ConfigError: In one line, what is wrong and where it was written.
    """
    fields = find_fields(cls)
    settings: list[Setting] = []
    if isinstance(file, Mapping):
        settings += settings_from_mapping(file, fields)
    elif file is not None:
        settings += settings_from_mapping(load_yaml(file), fields, source=str(file))
    settings += settings_from_args(args, fields)
    chosen = choose_variants(cls, settings)
    fields = find_fields(cls, chosen=chosen)

    values = {path: field.default for path, field in fields.items()}
    for setting in settings:
        path = setting.field.path
        if setting.key is None:
            values[path] = setting.value
        else:
            values[path] = {**(values[path] or {}), setting.key: setting.value}
    for path, field in fields.items():
        if values[path] is MISSING:
            name = path.upper() if field.positional else field.flag
            raise ConfigError(f"{name} is missing; --help says what it is")
    return _build(cls, values, settings, chosen)


def config_from_dict(cls: type[ConfigT], mapping: Mapping[str, Any], source: str = "") -> ConfigT:
    """A configuration from a mapping whose sections are mappings or configuration objects.

    Args:
        cls: A dataclass; its fields may be dataclasses too, one per section.
        mapping: Values by name; what is missing keeps its default.
        source: Where the mapping was read, for messages.

    Raises:
        ConfigError: In one line, what is wrong and where it was written.
    """
    fields = find_fields(cls)
    settings = settings_from_mapping(mapping, fields, source)
    chosen = choose_variants(cls, settings)
    fields = find_fields(cls, chosen=chosen)
    values = {path: field.default for path, field in fields.items()}
    values |= {setting.field.path: setting.value for setting in settings}
    for path, value in values.items():
        if value is MISSING:
            raise ConfigError(f"{source}:{path} is missing".lstrip(":"))
    return _build(cls, values, settings, chosen)


def _build(
    cls: type[ConfigT],
    values: Mapping[str, Any],
    settings: Sequence[Setting],
    chosen: Chosen,
    prefix: str = "",
) -> ConfigT:
    arguments: dict[str, Any] = {}
    for field, annotation in own_fields(cls):
        path = prefix + field.name
        if path in values:
            arguments[field.name] = values[path]
        else:
            section = chosen.get(f"{path}.", annotation)
            arguments[field.name] = _build(section, values, settings, chosen, f"{path}.")
    try:
        return cls(**arguments)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{one_line(error)}{_blame(str(error), settings)}") from None


def _blame(message: str, settings: Sequence[Setting]) -> str:
    """Where the values that a class's own check complains about were written."""
    named = {
        setting.field.path: setting.source
        for setting in settings
        if re.search(rf"(?<![\w.]){re.escape(setting.field.path)}(?![\w.])", message)
    }
    # Keys of a plain mapping name only themselves, which says nothing new.
    sources = [source for path, source in named.items() if source != path]
    return f" (from {', '.join(sources)})" if sources else ""


def config_to_dict(config: Any) -> dict[str, Any]:
    """A configuration object as nested plain mappings that YAML can hold.

    Raises:
        ConfigError: A value, such as an object among keyword arguments, cannot be written down.
    """
    return {
        field.name: _plain(getattr(config, field.name), field.name)
        for field in dataclasses.fields(config)
        if not field.metadata.get("flag_only")
    }


def _plain(value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name), f"{path}.{field.name}")
            for field in dataclasses.fields(value)
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, path) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "item"):  # a NumPy number
        return value.item()
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ConfigError(f"{path}: expected a value that YAML can hold, got {value!r}")
