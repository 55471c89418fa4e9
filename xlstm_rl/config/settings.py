"""What a user set, where, and on the command line in which words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Annotated, Any, get_origin

from xlstm_rl.config.errors import ConfigError
from xlstm_rl.options.fields import is_flag, is_mapping, is_sequence, members, own_fields
from xlstm_rl.options.kinds import classes_of, is_section, kinds_of
from xlstm_rl.options.section import options_in

FLAG_ONLY = {"flag_only": True}
"""`metadata` of a field that is an option of a command and has no place in a file."""

_TRUTH = ("true", "false")


@dataclass(frozen=True)
class Setting:
    """A value that somebody gave to a field, to one key of a mapping, or to a whole section."""

    path: tuple[str, ...]
    value: Any
    source: str
    is_words: bool = False
    """Whether the value is the list of words behind a flag."""


def as_flag(path: str) -> str:
    """A dotted path as a flag: `env.num_envs` is `--env.num-envs`."""
    return "--" + path.replace("_", "-")


def is_positional(annotation: Any) -> bool:
    """Whether a field takes the words that stand behind no flag."""
    extras = annotation.__metadata__ if get_origin(annotation) is Annotated else ()
    # `Positional[str]` of tyro is `Annotated[str, marker]`.
    return any(str(extra).endswith("Positional") for extra in extras)


def rename(annotation: Any, path: tuple[str, ...]) -> tuple[str, ...]:
    """A path inside a section with an old name at its front replaced by the new one."""
    for cls in classes_of(annotation).values():
        new = getattr(cls, "renamed", {}).get(path[0])
        if new is not None:
            return (*new.split("."), *path[1:])
    return path


def find_type(annotation: Any, path: tuple[str, ...]) -> Any:
    """The type of the value at a path, in whichever kind of a section has it; None: there is none.

    That of a key of a mapping is Any.
    """
    path = rename(annotation, path)
    for cls in classes_of(annotation).values():
        fields = own_fields(cls)
        if path[0] not in fields or is_positional(fields[path[0]][1]):
            continue
        inner = fields[path[0]][1]
        if is_section(inner):
            return find_type(inner, path[1:]) if path[1:] else None
        if not path[1:]:
            return inner
        return Any if is_mapping(inner) else None
    return None


def all_paths(annotation: Any, with_flags: bool, prefix: str = "") -> list[str]:
    """The path of every section and every value, in whichever kind of a section."""
    paths: dict[str, None] = {}
    for cls in classes_of(annotation).values():
        for name, (field, kind) in own_fields(cls).items():
            if is_section(kind):
                # A section is written down in a file, but is not an option.
                paths |= {} if with_flags else {prefix + name: None}
                paths |= dict.fromkeys(all_paths(kind, with_flags, f"{prefix}{name}."))
            elif not is_positional(kind) and (with_flags or not field.metadata.get("flag_only")):
                paths[prefix + name] = None
    return list(paths)


def settings_from_args(cls: type, args: Sequence[str]) -> list[Setting]:
    """What the words of a command line set.

    Raises:
        ConfigError: A flag takes no value, or a word belongs to no flag.
    """
    positionals = {name: one for name, (_, one) in own_fields(cls).items() if is_positional(one)}
    settings, loose, words = [], [], list(args)
    while words:
        flag = words.pop(0)
        if not flag.startswith("--"):
            loose.append(flag)
            continue
        flag, equals, attached = flag.partition("=")
        path = tuple(flag[2:].replace("-", "_").split("."))
        kind = find_type(cls, path)
        positive = (*path[:-1], path[-1].removeprefix("no_"))
        if kind is None and positive != path and is_flag(find_type(cls, positive)):
            if equals:
                name = as_flag(".".join(positive))
                raise ConfigError(f"{flag}: takes no value; {name} true or false does")
            settings.append(Setting(positive, ["false"], flag, is_words=True))
            continue
        limit = None if kind is None or is_sequence(kind) else 1
        if positionals and members(kind) == (bool,) and words[:1] and words[0] not in _TRUTH:
            limit = 0
        taken = [attached] if equals else _take(words, limit)
        settings.append(Setting(path, taken, flag, is_words=True))
    for name, kind in positionals.items():
        taken = _take(loose, None if is_sequence(kind) else 1)
        if taken:
            settings.append(Setting((name,), taken, name.upper(), is_words=True))
    if loose:
        raise ConfigError(f"unexpected argument {loose[0]!r}; options begin with --")
    return settings


def _take(words: list[str], limit: int | None) -> list[str]:
    taken: list[str] = []
    while words and not words[0].startswith("--") and len(taken) != limit:
        taken.append(words.pop(0))
    return taken


def expand(settings: Sequence[Setting], annotation: Any, where: str) -> list[Setting]:
    """What was set in a section, whole sections taken apart and old names replaced by new ones.

    Args:
        settings: Their paths begin in the section; an empty path is that of the whole section.
        annotation: The type of the section.
        where: The section's own path, for messages.

    Raises:
        ConfigError: The section is given as something else than a mapping or an object.
    """
    found = []
    for setting in settings:
        if setting.path:
            found.append(replace(setting, path=rename(annotation, setting.path)))
            continue
        kinds = kinds_of(annotation)
        if kinds is not None and (setting.is_words or isinstance(setting.value, str)):
            found.append(replace(setting, path=(kinds.tag,)))  # `memory: gru`
            continue
        if setting.is_words:
            flag = as_flag(where)
            raise ConfigError(f"{flag}: a section, not an option; its options are {flag}.*")
        given = setting.value  # None: a section of a file whose lines are all commented out
        if not (given is None or isinstance(given, Mapping) or is_dataclass(given)):
            expected = "expected a section such as {key: value}"
            raise ConfigError(f"{setting.source}: {expected}, got {given!r}")
        options = options_in(given)
        if isinstance(given, Mapping):
            options = getattr(members(annotation)[0], "upgrade", dict)(options)
        before = setting.source if where == "" else f"{setting.source}."
        for key, value in options.items():
            path = rename(annotation, (str(key),))
            found.append(Setting(path, value, f"{before}{key}"))
    return found
