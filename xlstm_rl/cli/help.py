"""The help of a command: a first page with the options of most runs, and the whole of it."""

import ast
import dataclasses
import inspect
import re
import sys
import textwrap
from collections.abc import Collection, Iterable, Sequence
from contextlib import redirect_stdout, suppress
from functools import cache
from io import BytesIO, TextIOWrapper
from itertools import pairwise
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Literal, get_args, get_origin

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from xlstm_rl.config import ConfigError, parse_config
from xlstm_rl.config.errors import one_line
from xlstm_rl.config.settings import as_flag
from xlstm_rl.options.arguments import did_you_mean
from xlstm_rl.options.fields import bare, is_mapping, members, own_fields
from xlstm_rl.options.kinds import classes_of, is_section, kinds_of

HELP = ("-h", "--help")
ALL = "all"

_NARROWEST = 24  # columns for a description beside its option
_METAVARS = {int: "INT", float: "FLOAT", str: "STR"}


def split_help(args: Sequence[str]) -> tuple[list[str], str | None]:
    """The words of a command line without `--help`, and the word behind it, if there is one."""
    words, topic = list(args), None
    for flag in HELP:
        while flag in words:
            at = words.index(flag)
            following = words[at + 1 : at + 2]
            if following and not following[0].startswith("-"):
                topic = following[0]
            del words[at : at + 1 + (topic is not None and bool(following))]
    return words, topic


def print_help(
    cls: type,
    args: Sequence[str],
    command: str,
    file: Path | None,
    first_page: Sequence[str] | None,
) -> None:
    """Print the help and leave.

    The defaults that are shown are those of the file, and what stands beside `--help`: it may say
    which of several kinds a section is of, and so which options there are. Sections that stand
    there are shown, and not the first page.

    Args:
        cls: The options.
        args: The words of the command line.
        command: Its name.
        file: The file of `--config`.
        first_page: The options of the first page, dotted; None: there is one page.

    Raises:
        ConfigError: There is no such part of the help.
        SystemExit: The help was printed.
    """
    words, topic = split_help(args)
    sections = [name for name, (_, kind) in own_fields(cls).items() if is_section(kind)]
    if topic is not None and topic not in (ALL, *sections):
        known = f"; there are {ALL}, {', '.join(sections)}" if sections else ""
        hint = did_you_mean(topic, [ALL, *sections])
        raise ConfigError(f"--help {topic}: no such part of the help{hint or known}")
    topics = {topic} if topic is not None else _sections_in(words) & set(sections)
    default: Any = tyro.MISSING_NONPROP
    with suppress(ConfigError):
        default = parse_config(cls, (), file)
    with suppress(ConfigError):
        default = parse_config(cls, words, file)
    if first_page is not None and not topics:
        print(_first_page(cls, default, command, first_page, sections))
        raise SystemExit(0)
    if first_page is None or ALL in topics:
        topics = set()
    # of the encoding of the terminal, which says whether frames can be drawn
    printed = TextIOWrapper(BytesIO(), encoding=sys.stdout.encoding or "utf-8")
    try:
        with redirect_stdout(printed), _registry(cls, topics):
            tyro.cli(
                cls,
                prog=f"xlstm-rl {command}",
                args=["--help"],
                default=default,
                config=(tyro.conf.AvoidSubcommands,),
            )
    finally:
        printed.seek(0)
        print(_wrapped(printed.read()), end="")


def _sections_in(words: Sequence[str]) -> set[str]:
    """The sections that flags stand in: `--memory.kind gru` in memory, `--memory gru` too."""
    return {word[2:].partition(".")[0] for word in words if word.startswith("--")}


def _first_page(
    cls: type, default: Any, command: str, paths: Sequence[str], sections: Sequence[str]
) -> str:
    """The options of most runs, each with the first sentence about it."""
    about, _, more = (inspect.getdoc(cls) or "").partition("\n\n")
    entries = []
    for path in paths:
        owner, value, kind = cls, default, None
        for name in path.split("."):
            owner = type(value) if dataclasses.is_dataclass(value) else owner
            kind = own_fields(owner).get(name, (None, None))[1]
            value = getattr(value, name, None)
            found, option = owner, name
        if kind is not None:  # not an option of this algorithm, say
            words = _words_of_tag(_tags(cls), found, option)
            flag = f"{as_flag(path)} {_metavar(kind) if words is None else _choice(words)}"
            sentence = re.split(r"(?<!\.)\. (?=[A-Z`])", field_doc(found, name))[0].rstrip(".")
            entries.append((flag, f"{sentence} (default: {value})"))
    column = max(len(flag) for flag, _ in entries[:-1]) + 4
    column = min(column, 34) if _width() >= 34 + _NARROWEST else 6
    lines = []
    for flag, text in entries:
        first = f"  {flag}".ljust(column)
        if len(first) > column:
            lines += [first] if len(first) <= _width() else _at_commas(first)
            first = " " * column
        lines += textwrap.wrap(text, _width(), initial_indent=first, subsequent_indent=" " * column)
    usage = f"usage: xlstm-rl {command} [--config NAME] [--SECTION.OPTION VALUE ...]"
    rest = (
        f"The options of most runs. `--help {ALL}` shows every option, `--help SECTION` those of "
        f"one section: {', '.join(sections)}."
    )
    return "\n".join(
        [*_lines(usage), "", *_lines(about), "", *_lines(more), "", *lines, "", *_lines(rest)]
    )


def _metavar(kind: Any) -> str:
    """What stands for the value of an option."""
    names = []
    for one in members(kind):
        if get_origin(one) is Literal:
            names.append(_choice(map(str, get_args(one))))
        elif bare(one) is not type(None):
            names.append(_METAVARS.get(bare(one), "VALUE"))
    return "|".join(names)


def _choice(words: Iterable[str]) -> str:
    return f"{{{','.join(words)}}}"


def _at_commas(flag: str) -> list[str]:
    """The words that an option takes, on several lines where one has no room for them."""
    spread = flag.replace(",", ", ")
    return textwrap.wrap(spread, _width(), subsequent_indent=" " * 6, break_on_hyphens=False)


def _width() -> int:
    return min(get_terminal_size().columns, 100)


def _lines(text: str) -> list[str]:
    return textwrap.wrap(one_line(text), _width())


def _wrapped(text: str) -> str:
    """A text whose plain lines fit the terminal; frames, whose text fits already, stay."""
    lines: list[str] = []
    # of positional words, whose frame keeps its width
    text = text.replace("(default: )", " " * len("(default: )"))
    for line in text.splitlines():
        is_plain = line[:1].isalnum() or line[:1] == "`"
        lines += _lines(line) if is_plain else [line]
    return "\n".join(lines) + "\n"


def _registry(root: type, topics: Collection[str]) -> ConstructorRegistry:
    """The rules by which tyro shows sections, mappings and the tags of kinds.

    Args:
        root: The class of the options.
        topics: The sections that are shown; empty: everything.
    """
    tags = _tags(root)
    shown: dict[Any, list[str]] = {}

    def primitive(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        words = ["KEY: VALUE, ..."] if is_mapping(info.type) else shown.get(info.type)
        if words is None:
            return None
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=_choice(words),
            instance_from_str=lambda tokens: tokens[0],
            is_instance=lambda value: True,
            str_from_instance=lambda value: [str(value)],
        )

    def section(info: StructTypeInfo) -> StructConstructorSpec | None:
        cls: Any = info.type
        if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
            return None
        fields = []
        for name, (field, kind) in own_fields(cls).items():
            if topics and cls is root and name not in topics:
                continue
            default, words = _default(field, info.default), _words_of_tag(tags, cls, name)
            if words is not None:  # a kind of its own module is none of them, several are
                kind = Literal[tuple(dict.fromkeys([*words, default]))]
                shown[kind] = words
            fields.append(StructFieldSpec(name, kind, default, helptext=field_doc(cls, name)))
        return StructConstructorSpec(instantiate=cls, fields=tuple(fields))

    registry = ConstructorRegistry()
    registry.primitive_rule(primitive)
    registry.struct_rule(section)
    return registry


def _default(field: "dataclasses.Field[Any]", parent: Any) -> Any:
    if dataclasses.is_dataclass(parent):
        return getattr(parent, field.name)
    if field.default is not dataclasses.MISSING:
        return field.default
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING_NONPROP


def _tags(root: type) -> dict[tuple[type, str], list[str]]:
    """The words that the tags of sections may be, by the class of each kind and the tag."""
    words: dict[tuple[type, str], list[str]] = {}
    sections = [root]
    while sections:
        for _, annotation in own_fields(sections.pop()).values():
            kinds = kinds_of(annotation) if is_section(annotation) else None
            if kinds is not None:
                words |= {(cls, kinds.tag): list(kinds.classes) for cls in kinds.classes.values()}
            sections += classes_of(annotation).values() if is_section(annotation) else ()
    return words


def _words_of_tag(
    tags: dict[tuple[type, str], list[str]], cls: type, name: str
) -> list[str] | None:
    """The words that an option may be, if it is the tag of its section; of several kinds too."""
    return next((tags[one, name] for one in cls.__mro__ if (one, name) in tags), None)


def field_doc(cls: type, name: str) -> str:
    """What stands below a field in the source of its class, in one line; empty: nothing does.

    One line, because whoever shows it breaks it to the width of the terminal.
    """
    for one in cls.__mro__:
        if one.__module__ != "builtins" and name in (docs := _field_docs(one)):
            return docs[name]
    return ""


@cache
def _field_docs(cls: type) -> dict[str, str]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    except (OSError, TypeError, SyntaxError):  # made without a source
        return {}
    body = tree.body if isinstance(tree, ast.ClassDef) else []
    found = {}
    for field, below in pairwise(body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = one_line(below.value.value)
    return found
