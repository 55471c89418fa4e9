"""A section of the configuration: a frozen dataclass that checks its fields when it is made.

@dataclass(frozen=True)
class Example(Section):
section = "example"
steps: Count = 3
rate: Fraction | None = None
"""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, ClassVar

from xlstm_rl.options.fields import check_range, convert, default_of, own_fields
from xlstm_rl.options.foreign import suggest
from xlstm_rl.options.kinds import Kinds

_unused_is_refused: ContextVar[bool] = ContextVar("unused_is_refused", default=True)
_asked_for: ContextVar[Collection[str] | None] = ContextVar("asked_for", default=None)


class _SectionType(type):
    section: str

    def __call__(cls, *args: Any, **options: Any) -> Any:
        kinds: Kinds | None = vars(cls).get("kinds")
        if kinds is not None:  # the base of several kinds: one of them is made
            if args:  # the tag alone may stand without its name
                options = dict(zip([kinds.tag], args, strict=True)) | options
            word = kinds.word(options.get(kinds.tag, kinds.default))
            try:
                kind = kinds.find(word)
            except ValueError as error:
                raise ValueError(f"{cls.path(kinds.tag)}: {error}") from None
            return kind(**(options | {kinds.tag: word}))
        options = modernize(cls, options)
        for name in options.keys() - own_fields(cls):
            why = refusal(cls, getattr(cls, "kinds", None), cls.path(""), name)
            hint = suggest(name, own_fields(cls))
            raise ValueError(f"{cls.path(name)}: {why or 'no such option' + hint}")
        return super().__call__(*args, **options)

    def path(cls, name: str) -> str:
        """The path of an option, such as `agent.epochs`."""
        return f"{cls.section}.{name}" if cls.section else name


class Section(metaclass=_SectionType):
    """The base of the sections.

    A class with `kinds` of its own is the base of several kinds: called, it makes an object of the
    one that the tag names.

    Raises:
        ValueError: A name is unknown, or a value is of the wrong type or out of its range.
    """

    section: ClassVar[str] = ""
    """Its path, such as `agent`; empty: that of the whole configuration."""

    renamed: ClassVar[Mapping[str, str]] = {}
    """New names by the old ones that are taken too, dotted where an option moved into a section
    inside."""

    former: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Defaults of older versions, by option: the file of a run holds every option, so that such a
    number was not asked for."""

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        if "__repr__" not in vars(cls):  # or dataclass writes a long one
            cls.__repr__ = short_repr  # type: ignore[method-assign, assignment]

    def __post_init__(self) -> None:
        for name, (_, kind) in own_fields(type(self)).items():
            path, value = type(self).path(name), getattr(self, name)
            try:
                value = convert(value, kind)
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from None
            try:
                check_range(value, kind)
            except ValueError as error:
                raise ValueError(f"{path}={value!r}: {error}") from None
            object.__setattr__(self, name, value)

    @classmethod
    def upgrade(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return a file's options as this version takes them, where an older one wrote others."""
        return dict(options)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Read an option by its old name."""
            if name not in type(self).renamed:
                raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
            value = self
            for part in type(self).renamed[name].split("."):
                value = getattr(value, part)
            return value


def short_repr(self: Section) -> str:
    """Return the call that makes this section: what is at its default is left out."""
    parts = []
    for name, (field, _) in own_fields(type(self)).items():
        value, default = getattr(self, name), default_of(field)
        if value != default or type(value) is not type(default):
            parts.append(f"{name}={value!r}")
    return f"{type(self).__name__}({', '.join(parts)})"


def refuse_unused(section: Section, names: Iterable[str], owner: str) -> None:
    """Refuse options that were changed though nothing will read them.

    Args:
        section: The section.
        names: Its options that nothing reads.
        owner: What they are options of, and why it is not there.

    Raises:
        ValueError: One of them is not what it is by default.
    """
    if not _unused_is_refused.get():
        return
    for name in names:
        value, path = getattr(section, name), type(section).path(name)
        default, asked_for = default_of(own_fields(type(section))[name][0]), _asked_for.get()
        if value == default:
            continue
        former = type(section).former.get(name, ())
        is_asked_for = value not in former if asked_for is None else path in asked_for
        if is_asked_for:
            raise ValueError(f"{path}={value!r}: an option of {owner}")
        object.__setattr__(section, name, default)


@contextmanager
def accepting_unused() -> Iterator[None]:
    """Let options pass that nothing reads: what was saved with them before is read all the same."""
    token = _unused_is_refused.set(False)
    try:
        yield
    finally:
        _unused_is_refused.reset(token)


@contextmanager
def dropping_unused(asked_for: Collection[str]) -> Iterator[None]:
    """Set options that nothing reads back to their defaults, but for those that are asked for.

    So others may change that they belonged to.

    Args:
        asked_for: paths of options, such as `evaluation.episodes`, which are refused as always.
    """
    token = _asked_for.set(asked_for)
    try:
        yield
    finally:
        _asked_for.reset(token)


def modernize(cls: type, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with their old names replaced by the new ones.

    Raises:
        ValueError: An option is given by both names.
    """
    renamed: Mapping[str, str] = getattr(cls, "renamed", {})
    new = {name: value for name, value in options.items() if name not in renamed}
    for old in [name for name in options if name in renamed]:
        *sections, name = renamed[old].split(".")
        inside = new
        for part in sections:
            inside[part] = options_in(inside.get(part))
            inside = inside[part]
        if name in inside:
            raise ValueError(f"{old} is the old name of {renamed[old]}: give one of the two")
        inside[name] = options[old]
    return new


def options_in(section: Any) -> dict[str, Any]:
    """The options in a section that is given as a mapping, an object or not at all."""
    if dataclasses.is_dataclass(section) and not isinstance(section, type):
        return {name: getattr(section, name) for name in own_fields(type(section))}
    return dict(section or {})


def refusal(cls: type, kinds: Kinds | None, prefix: str, name: str) -> str | None:
    """Why a section of this class has no option of this name, where another kind has it."""
    owners = [] if kinds is None else kinds.owners(name)
    if kinds is None or not owners:
        return None
    tag = prefix + kinds.tag
    return f"an option of {tag}={' or '.join(owners)}, but {tag} is {kinds.word_of(cls)}"
