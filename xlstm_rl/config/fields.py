"""The fields of a nested configuration class, and where a user's words for them are found."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from xlstm_rl.config.errors import ConfigError, suggestion
from xlstm_rl.config.values import is_mapping, is_sequence, members, parse_tokens, parse_value
from xlstm_rl.config.variants import Variants, variants_of
from xlstm_rl.config.yaml_file import parse_yaml

FLAG_ONLY = {"flag_only": True}
"""`metadata` of a field that is an option of a command and has no place in a file."""

# `Positional[str]` is `Annotated[str, marker]`; this is that marker.
_POSITIONAL = get_args(tyro.conf.Positional[str])[1]


@dataclass(frozen=True)
class Field:
    """One value of a configuration, at a dotted path such as `env.num_envs`."""

    path: str
    kind: Any
    default: Any
    positional: bool
    flag_only: bool

    @property
    def flag(self) -> str:
        """The field as a flag, such as `--env.num-envs`."""
        return as_flag(self.path)


@dataclass(frozen=True)
class Setting:
    """A value that somebody gave to a field (to one key of it, where it is a mapping)."""

    field: Field
    value: Any
    source: str
    key: str | None = None


Chosen = Mapping[str, type]
"""The class of each section that may be of several, by the section's path with a dot behind it."""


def as_flag(path: str) -> str:
    """A dotted path as a flag: `env.num_envs` is `--env.num-envs`."""
    return "--" + path.replace("_", "-")


def own_fields(cls: type) -> list[tuple[dataclasses.Field[Any], Any]]:
    """The fields of a dataclass with their resolved types."""
    hints = get_type_hints(cls, include_extras=True)
    return [(field, hints[field.name]) for field in dataclasses.fields(cls) if field.init]


def default_of(field: dataclasses.Field[Any], parent: Any) -> Any:
    """What a field holds when nobody sets it; `MISSING` where it must be set."""
    if parent is not None:
        return getattr(parent, field.name)
    if field.default is not MISSING:
        return field.default
    return MISSING if field.default_factory is MISSING else field.default_factory()


def find_fields(
    cls: type, parent: Any = None, prefix: str = "", chosen: Chosen | None = None
) -> dict[str, Field]:
    """Every value of a nested configuration class, by its dotted path.

    Args:
        cls: The class.
        parent: An object of it whose values are the defaults; None: the class's own.
        prefix: What stands before the names of its fields, with a dot behind it.
        chosen: The class of each section that may be of several; None: the fields of all of them.
    """
    found: dict[str, Field] = {}
    for field, annotation in own_fields(cls):
        path, default = prefix + field.name, default_of(field, parent)
        section = None if default is MISSING else default
        variants = variants_of(annotation)
        if variants is not None:
            found |= _variant_fields(variants, section, f"{path}.", chosen)
            continue
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
            found |= find_fields(annotation, section, f"{path}.", chosen)
            continue
        extras: tuple[Any, ...] = ()
        if get_origin(annotation) is Annotated:
            annotation, *rest = get_args(annotation)
            extras = tuple(rest)
        found[path] = Field(
            path=path,
            kind=annotation,
            default=default,
            positional=_POSITIONAL in extras,
            flag_only=bool(field.metadata.get("flag_only")),
        )
    return found


def _variant_fields(
    variants: Variants, default: Any, prefix: str, chosen: Chosen | None
) -> dict[str, Field]:
    classes = list(variants.classes.values()) if chosen is None else [chosen[prefix]]
    found: dict[str, Field] = {}
    for cls in classes:
        parent = default if type(default) is cls else None
        for path, field in find_fields(cls, parent, prefix, chosen).items():
            if path == prefix + variants.tag:
                field = dataclasses.replace(field, kind=variants.tag_kind)
            if path in found and found[path].kind != field.kind:
                raise TypeError(f"{path} is {found[path].kind} here and {field.kind} there")
            found.setdefault(path, field)
    return found


def settings_from_mapping(
    mapping: Mapping[str, Any], fields: Mapping[str, Field], source: str = "", prefix: str = ""
) -> list[Setting]:
    """What a file or a dict sets, sections as mappings or as configuration objects.

    Raises:
        ConfigError: A key is unknown, or a value has the wrong type.
    """
    settings = []
    for key, value in mapping.items():
        path = f"{prefix}{key}"
        where = f"{source}:{path}" if source else path
        field = None if "." in str(key) else fields.get(path)
        if field is not None and not field.flag_only:
            try:
                settings.append(Setting(field, parse_value(value, field.kind), where))
            except ConfigError as error:
                raise ConfigError(f"{where}: {error}") from None
        elif "." not in str(key) and any(name.startswith(f"{path}.") for name in fields):
            section = _as_section(value, where)
            settings += settings_from_mapping(section, fields, source, f"{path}.")
        else:
            raise ConfigError(f"{where}: no such key{_hint(path, key, fields, prefix)}")
    return settings


def _as_section(value: Any, where: str) -> Mapping[str, Any]:
    if value is None:  # a section whose lines are all commented out
        return {}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a section such as {{key: value}}, got {value!r}")
    return value


def _hint(path: str, key: Any, fields: Mapping[str, Field], prefix: str) -> str:
    if "." in str(key):
        return "; write a key of a section as `section: {key: value}`"
    known = [name for name, field in fields.items() if not field.flag_only]
    sections = {name.rpartition(".")[0] for name in known} - {""}
    hint = suggestion(path, [*known, *sections])
    if hint:
        return hint
    names = {name[len(prefix) :].partition(".")[0] for name in known if name.startswith(prefix)}
    return f"; known here: {', '.join(sorted(names))}"


def settings_from_args(args: Sequence[str], fields: Mapping[str, Field]) -> list[Setting]:
    """What the words of a command line set.

    Raises:
        ConfigError: A flag is unknown, lacks its value or has one of the wrong type, or a word
            belongs to no flag.
    """
    settings, loose, words = [], [], list(args)
    takes_loose_words = any(field.positional for field in fields.values())
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            loose.append(word)
            continue
        flag, equals, attached = word.partition("=")
        field, key, negated = _find_flag(flag, fields)
        if equals:
            values = [attached]
        else:
            bare = members(field.kind) == (bool,) and key is None
            values = _take_values(words, field, key, optional=bare and takes_loose_words)
        if not values and bool in members(field.kind):
            values = ["false" if negated else "true"]
        elif negated:
            raise ConfigError(f"{flag}: takes no value; {field.flag} true or false does")
        if not values and not is_sequence(field.kind):
            raise ConfigError(f"{flag}: expected a value after it")
        settings.append(Setting(field, _parse_words(flag, values, field, key), flag, key))
    return settings + _positionals(loose, fields)


def _find_flag(flag: str, fields: Mapping[str, Field]) -> tuple[Field, str | None, bool]:
    """The field of a flag, the key of it that is meant, and whether the flag says no to it."""
    path = flag[2:].replace("-", "_")
    known = {name: field for name, field in fields.items() if not field.positional}
    if path in known:
        return known[path], None, False
    section, _, name = path.rpartition(".")
    positive = ".".join(filter(None, [section, name.removeprefix("no_")]))
    if name.startswith("no_") and positive in known and bool in members(known[positive].kind):
        return known[positive], None, True
    for owner, field in known.items():
        if is_mapping(field.kind) and path.startswith(f"{owner}."):
            return field, path[len(owner) + 1 :], False
    if any(name.startswith(f"{path}.") for name in known):
        raise ConfigError(f"{flag}: a section, not an option; its options are {flag}.*")
    hint = suggestion(path, known)
    if hint:
        _, _, name = hint.removesuffix("?").rpartition(" ")
        hint = f"; did you mean {as_flag(name)}?"
    raise ConfigError(f"{flag}: no such option{hint or '; --help lists them'}")


def _take_values(words: list[str], field: Field, key: str | None, optional: bool) -> list[str]:
    """Take the words after a flag that belong to it.

    `optional`: a word after this flag may also be a positional argument, unless it says true or
    false.
    """
    limit = None if key is None and is_sequence(field.kind) else 1
    if optional and words and words[0].lower() not in ("true", "false"):
        limit = 0
    taken: list[str] = []
    while words and not words[0].startswith("--") and len(taken) != limit:
        taken.append(words.pop(0))
    return taken


def _parse_words(flag: str, words: list[str], field: Field, key: str | None) -> Any:
    try:
        return parse_yaml(words[0]) if key else parse_tokens(words, field.kind)
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from None


def _positionals(words: list[str], fields: Mapping[str, Field]) -> list[Setting]:
    settings = []
    for field in (field for field in fields.values() if field.positional):
        name = field.path.upper()
        count = len(words) if is_sequence(field.kind) else 1
        taken, words = words[:count], words[count:]
        if taken:
            settings.append(Setting(field, _parse_words(name, taken, field, None), name))
    if words:
        raise ConfigError(f"unexpected argument {words[0]!r}; options begin with --")
    return settings
