"""What every command shares: reading its options, its help, and refusing bad input."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from xlstm_rl.config import ConfigError, parse_config
from xlstm_rl.config.errors import one_line
from xlstm_rl.options.fields import is_mapping, own_fields
from xlstm_rl.options.kinds import classes_of, is_section, kinds_of

OptionsT = TypeVar("OptionsT")

_HELP = ("-h", "--help")


def read_options(
    cls: type[OptionsT], args: Sequence[str], command: str, file: Path | None = None
) -> OptionsT:
    """The options of a command, from its words and a file; prints the help where it is asked for.

    Raises:
        ConfigError: They are wrong.
        SystemExit: The help was printed.
    """
    if any(word in _HELP for word in args):
        _print_help(cls, args, command, file)
    return parse_config(cls, args, file)


def _print_help(cls: type[OptionsT], args: Sequence[str], command: str, file: Path | None) -> None:
    # The defaults that are shown are those of the file, and what stands beside --help: it may
    # say which of several kinds a section is of, and so which options there are.
    words = [word for word in args if word not in _HELP]
    default: Any = tyro.MISSING_NONPROP
    with suppress(ConfigError):
        default = parse_config(cls, (), file)
    with suppress(ConfigError):
        default = parse_config(cls, words, file)
    with _metavars(cls):
        tyro.cli(
            cls,
            prog=f"xlstm-rl {command}",
            args=["--help"],
            default=default,
            config=(tyro.conf.AvoidSubcommands,),
        )


def _metavars(cls: type) -> ConstructorRegistry:
    """How the help shows mappings, and the word that says of which kind a section is."""
    words: dict[Any, list[str]] = {}
    sections = [cls]
    while sections:
        for _, annotation in own_fields(sections.pop()).values():
            kinds = kinds_of(annotation) if is_section(annotation) else None
            if kinds is not None:
                words |= {Literal[word]: list(kinds.classes) for word in kinds.classes}
            sections += classes_of(annotation).values() if is_section(annotation) else ()

    def rule(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if not is_mapping(info.type) and info.type not in words:
            return None
        known = ",".join(words.get(info.type, ["KEY: VALUE, ..."]))
        return PrimitiveConstructorSpec(
            nargs=1,
            metavar=f"{{{known}}}",
            instance_from_str=lambda tokens: tokens[0],
            is_instance=lambda value: True,
            str_from_instance=lambda value: [str(value)],
        )

    registry = ConstructorRegistry()
    registry.primitive_rule(rule)
    return registry


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn a ValueError from building what a user asked for into a ConfigError."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(one_line(error)) from error
