"""One value of a configuration: its type in words, and how text and Python values become it.

tyro turns text into typed values, the command line's and a file's alike; here is what stands
around it: messages of one line, none for optional values, and mappings written as YAML.
"""

import numbers
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    UnsupportedTypeAnnotationError,
)

from xlstm_rl.config.errors import ConfigError, suggestion
from xlstm_rl.config.yaml_file import parse_yaml

_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
_WORDS[Path] = "a path"

registry = ConstructorRegistry()
"""tyro's rules plus ours for mappings, so that `--help` shows them too."""


@registry.primitive_rule
def _mapping_rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    if not is_mapping(info.type):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{KEY: VALUE, ...}",
        instance_from_str=lambda tokens: parse_yaml(tokens[0]),
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [str(dict(value))],
    )


def members(kind: Any) -> tuple[Any, ...]:
    """The types of a union; a type by itself otherwise."""
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def is_mapping(kind: Any) -> bool:
    """Whether a type is a mapping from names to values."""
    return (get_origin(kind) or kind) in (dict, Mapping)


def is_sequence(kind: Any) -> bool:
    """Whether a type, or a member of a union, is a list or tuple."""
    return any((get_origin(one) or one) in (list, tuple, Sequence) for one in members(kind))


def describe(kind: Any) -> str:
    """What a type expects, in words."""
    words = []
    for one in members(kind):
        if one is NoneType:
            continue
        if get_origin(one) is Literal:
            *most, last = map(str, get_args(one))
            words.append(" or ".join([", ".join(most), last] if most else [last]))
        elif is_mapping(one):
            words.append("a mapping such as {length: 32}")
        elif is_sequence(one):
            items = [item for item in get_args(one) if item is not Ellipsis]
            words.append("a list" + (f", each {describe(items[0])}" if items else ""))
        else:
            words.append(_WORDS.get(one, getattr(one, "__name__", str(one))))
    return " or ".join([*words, *(["none"] if NoneType in members(kind) else [])])


def parse_tokens(tokens: Sequence[str], kind: Any) -> Any:
    """The value of type `kind` that the words after a flag stand for.

    Raises:
        ConfigError: They stand for no such value.
    """
    words = list(tokens)
    if len(words) == 1:
        if NoneType in members(kind) and words[0].lower() in ("none", "null"):
            return None
        if bool in members(kind) and words[0].lower() in ("true", "false"):
            return words[0].lower() == "true"
    with registry:
        spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, set()))
    if isinstance(spec, UnsupportedTypeAnnotationError):
        raise TypeError(f"a configuration cannot hold the type {kind}")
    allowed = (spec.nargs,) if isinstance(spec.nargs, int) else spec.nargs
    wrong = ConfigError(
        f"expected {describe(kind)}, got {' '.join(words)!r}{_closest_choice(words, kind)}"
    )
    if allowed != "*" and len(words) not in allowed:
        raise wrong
    if spec.choices is not None and not set(words) <= set(spec.choices):
        raise wrong
    try:
        value = spec.instance_from_str(words)
    except ValueError as error:
        raise error if isinstance(error, ConfigError) else wrong from None
    if is_mapping(kind):
        return check_mapping(value)
    return value


def parse_value(value: Any, kind: Any) -> Any:
    """The value of type `kind` that a value from YAML or Python stands for.

    Text and numbers go through `parse_tokens`, so that a file and the command line agree.

    Raises:
        ConfigError: It stands for no such value.
    """
    wrong = ConfigError(f"expected {describe(kind)}, got {value!r}")
    options = members(kind)
    if value is None:
        if NoneType not in options:
            raise wrong
        return None
    if isinstance(value, Mapping) or is_mapping(kind):
        if not any(is_mapping(one) for one in options):
            raise wrong
        return check_mapping(value)
    items = list(value) if isinstance(value, list | tuple) else [value]
    if isinstance(value, list | tuple) != is_sequence(kind) or not all(map(_is_scalar, items)):
        raise wrong
    # `name: true` would otherwise become the text "True".
    if isinstance(value, bool) and bool not in options:
        raise wrong
    try:
        return parse_tokens([str(item) for item in items], kind)
    except ConfigError as error:
        # Numbers are shown as they came: 1e6 reads as 1000000.0 to Python.
        raise error if isinstance(value, str) else wrong from None


def check_mapping(value: Any) -> dict[str, Any]:
    """A mapping whose keys are names, as a new dict.

    Raises:
        ConfigError: It is something else.
    """
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"expected a mapping such as {{length: 32}}, got {value!r}")
    return dict(value)


def _is_scalar(value: Any) -> bool:
    # NumPy's numbers are registered with `numbers`; its bool is not, but names itself.
    return isinstance(value, str | Path | numbers.Real) or type(value).__name__ in ("bool", "bool_")


def _closest_choice(words: list[str], kind: Any) -> str:
    choices = [
        str(choice)
        for one in members(kind)
        if get_origin(one) is Literal
        for choice in get_args(one)
    ]
    return suggestion(words[0], choices) if len(words) == 1 else ""
