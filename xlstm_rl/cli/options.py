"""What every command shares: reading its options, its help, and refusing bad input."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import tyro

from xlstm_rl.config import ConfigError, parse_config
from xlstm_rl.config.errors import one_line
from xlstm_rl.config.values import registry

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
        _print_help(cls, command, file)
    return parse_config(cls, args, file)


def _print_help(cls: type[OptionsT], command: str, file: Path | None) -> None:
    prog = f"xlstm-rl {command}"
    with registry:
        if file is None:
            tyro.cli(cls, prog=prog, args=["--help"])
        else:  # the defaults that are shown are those of the file
            tyro.cli(cls, prog=prog, args=["--help"], default=parse_config(cls, (), file))


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn a ValueError from building what a user asked for into a ConfigError."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(one_line(error)) from error
