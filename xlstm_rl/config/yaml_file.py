"""YAML in and out, without YAML 1.1's surprises.

PyYAML follows YAML 1.1, where `1e-3` is a string, `no` is false, `010` is 8 and `12:30` is 750.
The loader here reads plain values as YAML 1.2 does, and refuses duplicate keys, which YAML
forbids and PyYAML silently resolves to the last one.
"""

import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from xlstm_rl.config.errors import ConfigError, one_line
from xlstm_rl.options.arguments import user_path

_PLAIN_VALUES = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9][0-9_]*\.[0-9]*)([eE][-+]?[0-9]+)?"
        r"|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("merge", r"<<", "<"),
)


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise ConfigError(f"line {line}: the key {key.value!r} is given a second time")
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    # Strings that either YAML 1.1 or 1.2 would read as something else are quoted.
    def ignore_aliases(self, data: Any) -> bool:
        return True


# PyYAML's own rules for plain values are YAML 1.1's.
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in _PLAIN_VALUES:
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(
            f"tag:yaml.org,2002:{_tag}",
            re.compile(f"^(?:{_pattern})$"),
            ["" if c == "\0" else c for c in _first],
        )


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for.

    Raises:
        ConfigError: The text is not YAML, or has a key twice.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise ConfigError(f"{line}not valid YAML: {one_line(error.problem)}") from None
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not valid YAML: {one_line(error)}") from None


def load_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; an empty file is an empty mapping.

    Raises:
        ConfigError: The file cannot be read, is not YAML, or holds something else.
    """
    try:
        value = parse_yaml(user_path(path).read_text(encoding="utf-8"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not a text file; expected YAML") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ConfigError(
            f"{path}: expected a mapping such as `seed: 1`, got a {type(value).__name__}"
        )
    return value


def save_yaml(value: Mapping[str, Any], path: str | Path) -> None:
    """Write a plain mapping as YAML, in its own order; `load_yaml` reads the same back."""
    text = yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    user_path(path).write_text(text, encoding="utf-8")
