"""What every command shares: reading its options, its help, and refusing bad input."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from xlstm_rl.config import ConfigError, parse_config
from xlstm_rl.config.errors import one_line

OptionsT = TypeVar("OptionsT")

_HELP = ("-h", "--help")


def read_options(
    cls: type[OptionsT],
    args: Sequence[str],
    command: str,
    file: Path | None = None,
    first_page: Sequence[str] | None = None,
) -> OptionsT:
    """The options of a command, from its words and a file; prints the help where it is asked for.

    Args:
        cls: The class of the options.
        args: The words.
        command: Its name.
        file: The file of `--config`.
        first_page: The options that the first page of the help shows, dotted; None: all.

    Raises:
        ConfigError: They are wrong.
        SystemExit: The help was printed.
    """
    if any(word in _HELP for word in args):
        from xlstm_rl.cli.help import print_help  # a run does not wait for it

        print_help(cls, args, command, file, first_page)
    return parse_config(cls, args, file)


@contextmanager
def refusing_bad_input() -> Iterator[None]:
    """Turn a ValueError from building what a user asked for into a ConfigError."""
    try:
        yield
    except ValueError as error:
        raise ConfigError(one_line(error)) from error
