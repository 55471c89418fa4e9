"""From the command line, a file or Python to a checked configuration object, and back to YAML."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, replace
from pathlib import Path
from typing import Any, TypeVar

from xlstm_rl.config.errors import ConfigError, one_line
from xlstm_rl.config.settings import (
    Setting,
    all_paths,
    as_flag,
    expand,
    is_positional,
    settings_from_args,
)
from xlstm_rl.config.yaml_file import load_yaml, parse_yaml
from xlstm_rl.options.fields import (
    convert,
    default_of,
    is_flag,
    is_mapping,
    is_sequence,
    own_fields,
)
from xlstm_rl.options.foreign import suggest
from xlstm_rl.options.kinds import Kinds, classes_of, is_section, kinds_of
from xlstm_rl.options.section import refusal

ConfigT = TypeVar("ConfigT")


def parse_config(
    cls: type[ConfigT],
    args: Sequence[str] = (),
    file: Mapping[str, Any] | str | Path | None = None,
) -> ConfigT:
    """Return a configuration: its defaults, then a file, then a command line; later ones win.

    Args:
        cls: A dataclass; its fields may be dataclasses too, one per section.
        args: Flags such as `--env.num-envs 16`, without the program's name.
        file: A YAML file, or the mapping it would hold.

    Raises:
        ConfigError: In one line, what is wrong and where it was written.
    """
    settings = []
    if isinstance(file, Mapping):
        settings = [Setting((), file, "")]
    elif file is not None:
        settings = [Setting((), load_yaml(file), f"{file}:")]
    settings += settings_from_args(cls, args)
    config: ConfigT = _Builder(cls).build(cls, settings)
    return config


def config_from_dict(cls: type[ConfigT], mapping: Mapping[str, Any], source: str = "") -> ConfigT:
    """Return a configuration from a mapping whose sections are mappings or configuration objects.

    Args:
        cls: A dataclass; its fields may be dataclasses too, one per section.
        mapping: Values by name; what is missing keeps its default.
        source: Where the mapping was read, for messages.

    Raises:
        ConfigError: In one line, what is wrong and where it was written.
    """
    where = f"{source}:" if source else ""
    config: ConfigT = _Builder(cls, where).build(cls, [Setting((), mapping, where)])
    return config


class _Builder:
    """Builds a configuration from the inside out, and knows what came from where."""

    def __init__(self, root: type, file: str | None = None) -> None:
        self._root = root
        self._file = file
        self._sources: dict[str, str] = {}

    def build(
        self, annotation: Any, settings: Sequence[Setting], prefix: str = "", default: Any = None
    ) -> Any:
        """The section at `prefix`, whose type is `annotation`.

        `default` is an object whose values stand where nothing is set; None: the class's own do.
        """
        settings = expand(settings, annotation, prefix[:-1])
        cls = type(default) if default is not None else next(iter(classes_of(annotation).values()))
        kinds = kinds_of(annotation)
        if kinds is not None:
            cls, settings = _choose(kinds, settings, cls)
        fields, arguments = own_fields(cls), {}
        for setting in settings:
            field, kind = fields.get(setting.path[0], (None, None))
            if field is None or (field.metadata.get("flag_only") and not setting.is_words):
                self._refuse(setting, cls, annotation, prefix)
        for name, (field, kind) in fields.items():
            own = [replace(s, path=s.path[1:]) for s in settings if s.path[0] == name]
            value = _default(field, default if type(default) is cls else None)
            if is_section(kind):
                inner = None if value is MISSING else value
                arguments[name] = self.build(kind, own, f"{prefix}{name}.", inner)
            else:
                arguments[name] = self._value(f"{prefix}{name}", kind, own, value)
        try:
            return cls(**arguments)
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"{one_line(error)}{self._blame(str(error))}") from None

    def _value(self, path: str, kind: Any, settings: Sequence[Setting], value: Any) -> Any:
        for setting in settings:
            given, shown = setting.value, None
            self._sources[path] = setting.source
            try:
                if setting.is_words:
                    shown = " ".join(given)
                    given = _read_words(given, Any if setting.path else kind)
                if setting.path:
                    value = {**({} if value is MISSING else value), ".".join(setting.path): given}
                else:
                    value = convert(given, kind, shown)
            except ValueError as error:
                raise ConfigError(f"{setting.source}: {error}") from None
        if value is MISSING and self._file is not None:
            raise ConfigError(f"{self._file}{path} is missing")
        if value is MISSING:
            name = path.upper() if is_positional(kind) else as_flag(path)
            raise ConfigError(f"{name} is missing; --help says what it is")
        return value

    def _refuse(self, setting: Setting, cls: type, annotation: Any, prefix: str) -> None:
        name, source = setting.path[0], setting.source
        why = refusal(cls, kinds_of(annotation), prefix, name)
        if why is None and "." in name:
            why = "no such key; write a key of a section as `section: {key: value}`"
        elif why is None:
            known = [prefix + own for own in own_fields(cls)]
            known += all_paths(self._root, with_flags=setting.is_words)
            show = as_flag if setting.is_words else str
            hint = suggest(prefix + ".".join(setting.path), known, show)
            if setting.is_words:
                hint = hint or "; --help all lists them"
            what = "option" if setting.is_words else "key"
            why = f"no such {what}{hint or '; known here: ' + ', '.join(sorted(own_fields(cls)))}"
        raise ConfigError(f"{source}: {why}")

    def _blame(self, message: str) -> str:
        """Where the values that a class's own check complains about were written."""
        sources = [
            source
            for path, source in self._sources.items()
            # Keys of a plain mapping name only themselves, which says nothing new.
            if source != path and re.search(rf"(?<![\w.]){re.escape(path)}(?![\w.])", message)
        ]
        return f" (from {', '.join(sources)})" if sources else ""


def _choose(kinds: Kinds, settings: Sequence[Setting], cls: type) -> tuple[type, Sequence[Setting]]:
    """The class that the last tag names, with the settings of which it is the only tag."""
    tags = [setting for setting in settings if setting.path == (kinds.tag,)]
    if not tags:
        return cls, settings
    value = tags[-1].value
    word = kinds.word(",".join(value) if tags[-1].is_words else value)
    try:
        cls = kinds.find(word)
    except ValueError as error:
        raise ConfigError(f"{tags[-1].source}: {error}") from None
    rest = [setting for setting in settings if setting not in tags]
    return cls, [replace(tags[-1], value=word, is_words=False), *rest]


def _read_words(words: list[str], kind: Any) -> Any:
    """What the words behind a flag of this type are in Python; those of a key may be anything."""
    if is_sequence(kind):
        # as `wandb agent` passes a list: --logger.tags=['a', 'b']
        return parse_yaml(words[0]) if len(words) == 1 and words[0][:1] == "[" else words
    if not words and is_flag(kind):
        return True
    if not words:
        raise ConfigError("expected a value after it")
    text = " ".join(words)
    return parse_yaml(text) if kind is Any or is_mapping(kind) else text


def _default(field: "dataclasses.Field[Any]", parent: Any) -> Any:
    """What a field holds when nobody sets it; `MISSING` where it must be set."""
    if parent is not None:
        return getattr(parent, field.name)
    return default_of(field)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Return a configuration object as nested plain mappings that YAML can hold.

    Raises:
        ConfigError: A value, such as an object among keyword arguments, cannot be written down.
    """
    return {
        name: _plain(getattr(config, name), name)
        for name, (field, _) in own_fields(type(config)).items()
        if not field.metadata.get("flag_only")
    }


def _plain(value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{path}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, path) for item in value]
    if hasattr(value, "item"):  # a NumPy number
        return value.item()
    if value is None or isinstance(value, str | bool | int | float | Path):
        return str(value) if isinstance(value, Path) else value
    raise ConfigError(f"{path}: expected a value that YAML can hold, got {value!r}")
