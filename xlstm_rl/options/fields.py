"""What a field of the configuration may hold, said in its annotation, and values that become it."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from xlstm_rl.options.arguments import did_you_mean, plain_number, whole_number


@dataclass(frozen=True)
class Range:
    """Which numbers a field may hold, beside its type in `Annotated`."""

    words: str
    holds: Callable[[Any], bool]
    may_be_infinite: bool = False


Count = Annotated[int, Range("an integer >= 1", lambda x: x >= 1)]
CountOrZero = Annotated[int, Range("an integer >= 0", lambda x: x >= 0)]
Seed = Annotated[int, Range("an integer from 0 to 2^63 - 1", lambda x: 0 <= x < 2**63)]
Positive = Annotated[float, Range("a finite number > 0", lambda x: x > 0)]
PositiveOrZero = Annotated[float, Range("a finite number >= 0", lambda x: x >= 0)]
Limit = Annotated[float, Range("a number > 0, or inf", lambda x: x > 0, may_be_infinite=True)]
"""What something is cut to; infinity: nothing is."""
Fraction = Annotated[float, Range("a number from 0 to 1", lambda x: 0 <= x <= 1)]

_FINITE = Range("a finite number", lambda _: True)

_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
_WORDS |= {Path: "a path", NoneType: "none"}


def own_fields(cls: type) -> dict[str, tuple["dataclasses.Field[Any]", Any]]:
    """The fields of a dataclass that its constructor takes, with their resolved types."""
    return _own_fields(cls).copy()


@cache
def _own_fields(cls: type) -> dict[str, tuple["dataclasses.Field[Any]", Any]]:
    hints = get_type_hints(cls, include_extras=True)
    return {one.name: (one, hints[one.name]) for one in dataclasses.fields(cls) if one.init}


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """What a field holds where nobody sets it; `dataclasses.MISSING` where it must be set."""
    factory = field.default_factory
    return field.default if factory is dataclasses.MISSING else factory()


def bare(kind: Any) -> Any:
    """A type without what `Annotated` adds to it."""
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def members(kind: Any) -> tuple[Any, ...]:
    """The types of a union; a type by itself otherwise."""
    kind = bare(kind)
    return get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)


def is_mapping(kind: Any) -> bool:
    """Whether a type is a mapping from names to values."""
    return (get_origin(bare(kind)) or bare(kind)) in (dict, Mapping)


def is_sequence(kind: Any) -> bool:
    """Whether a type, or a member of a union, is a list or tuple."""
    return any((get_origin(one) or one) in (list, tuple, Sequence) for one in members(kind))


def is_flag(kind: Any) -> bool:
    """Whether a type, or a member of a union, is a truth value."""
    return bool in members(kind)


def describe(kind: Any) -> str:
    """What a type expects, in words."""
    words = []
    for one in sorted(map(bare, members(kind)), key=lambda one: one is NoneType):
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
    return " or ".join(words)


class _MismatchError(Exception):
    """A value is of another type."""


def convert(value: Any, kind: Any, shown: Any = None) -> Any:
    """The value of type `kind` that a value from Python, from YAML, or a text stands for.

    Args:
        value: The value.
        kind: The type; ranges beside it in `Annotated` are the section's own business.
        shown: What a message shows as the value; None: itself.

    Raises:
        ValueError: It stands for no such value.
    """
    for one in sorted(map(bare, members(kind)), key=lambda one: one is not NoneType):
        try:
            return _as(value, one)
        except _MismatchError:
            continue
    hint = did_you_mean(value, _choices(kind)) if isinstance(value, str) else ""
    shown = value if shown is None else shown
    raise ValueError(f"expected {describe(kind)}, got {shown!r}{hint}")


def _as(value: Any, kind: Any) -> Any:
    origin = get_origin(kind) or kind
    text = value.lower() if isinstance(value, str) else None
    if origin is Any or (origin is NoneType and (value is None or text in ("none", "null"))):
        return None if origin is NoneType else value
    if origin is Literal and isinstance(value, str) and value in get_args(kind):
        return value
    if is_mapping(kind) and isinstance(value, Mapping) and all(isinstance(k, str) for k in value):
        return dict(value)
    if is_sequence(kind) and isinstance(value, list | tuple):
        return _items(value, kind, origin)
    if origin is bool:
        return _truth(value, text)
    if origin in (int, float):
        number = whole_number(_number(value)) if origin is int else plain_number(_number(value))
        if number is not None:
            return origin(number)
    if origin is str and (isinstance(value, str | Path) or plain_number(value) is not None):
        return str(value)
    if origin is Path and isinstance(value, str | Path):
        return Path(value)
    if isinstance(origin, type) and dataclasses.is_dataclass(origin):
        if isinstance(value, origin):
            return value
        section: Any = origin
        if isinstance(value, Mapping):
            return section(**value)
        if isinstance(value, str) and "kinds" in vars(section):
            return section(value)
    raise _MismatchError


def _items(value: Sequence[Any], kind: Any, origin: Any) -> Any:
    item = next((one for one in get_args(kind) if one is not Ellipsis), Any)
    try:
        found = [convert(one, item) for one in value]
    except ValueError:
        raise _MismatchError from None
    return tuple(found) if origin is tuple else found


def _truth(value: Any, text: str | None) -> bool:
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    if isinstance(value, bool) or text in ("true", "false"):
        return text == "true" if text else bool(value)
    raise _MismatchError


def _number(value: Any) -> Any:
    """A number that a text stands for; anything else as it is."""
    if not isinstance(value, str):
        return value
    for read in (int, float):
        try:
            return read(value)
        except ValueError:
            continue
    raise _MismatchError


def check_range(value: Any, kind: Any) -> None:
    """Refuse a value of the right type that lies outside the type's range.

    A number is finite, unless a range says that it need not be: what an infinite one is multiplied
    with is lost.

    Raises:
        ValueError: Says what was expected.
    """
    options = members(kind)
    if value is None or value in _choices(kind):
        return
    is_finite = not isinstance(value, float) or math.isfinite(value)
    ranges: list[Range] = []
    for one in options if len(options) > 1 else (kind,):
        if isinstance(value, str) and bare(one) is not str:
            continue
        extras = one.__metadata__ if get_origin(one) is Annotated else ()
        ranges += [extra for extra in extras if isinstance(extra, Range)]
    if not is_finite and not ranges:
        ranges = [_FINITE]
    for found in ranges:
        if not found.holds(value) or not (is_finite or found.may_be_infinite):
            raise ValueError(f"expected {found.words}{' or none' * (NoneType in options)}")


def _choices(kind: Any) -> list[Any]:
    return [
        choice for one in members(kind) if get_origin(one) is Literal for choice in get_args(one)
    ]
