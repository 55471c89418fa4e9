"""Text that fits the terminal it is printed on; in a file and in a pipe it stays as it is."""

import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from typing import TextIO

_NARROWEST = 24
"""Columns that a description beside a name needs; with less it stands below."""

_COMMAND = re.compile(r"`[^`]+`|(?<=next: )\S.*")
"""What somebody may copy into a shell."""


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Return the columns of the terminal that a stream is, standard output by default.

    None: it is none, so that nothing has to fit.
    """
    stream = sys.stdout if stream is None else stream
    return shutil.get_terminal_size().columns if stream.isatty() else None


def wrapped(text: str, width: int | None, indent: int = 2) -> str:
    """Return a line in as many lines as it needs, broken between words and never in a command.

    A command stands between backticks or behind "next: ".

    Args:
        text: without line breaks.
        width: columns; None: it stays one line.
        indent: of the second line and those below.
    """
    if width is None or len(text) <= width:
        return text
    filled = textwrap.fill(
        _COMMAND.sub(lambda command: command[0].replace(" ", "\0"), text),
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return filled.replace("\0", " ")


def tell(line: str, stream: TextIO | None = None) -> None:
    """Print a line at once, wrapped where it is for a terminal.

    Args:
        line: without line breaks.
        stream: None: standard error.
    """
    stream = sys.stderr if stream is None else stream
    print(wrapped(line, terminal_width(stream)), file=stream, flush=True)


def described(entries: Sequence[tuple[str, str]], width: int | None, column: int) -> list[str]:
    """Return names with what is said of them, from a column on or, where it is narrow, below.

    Args:
        entries: name and description of each.
        width: columns of the terminal; None: a line for each.
        column: where descriptions begin.
    """
    if width is None or width - column >= _NARROWEST:
        lines = [wrapped(f"{name:<{column}}{text}", width, column) for name, text in entries]
    else:
        lines = [f"{name}\n{wrapped(f'    {text}', width, 4)}" for name, text in entries]
    return "\n".join(lines).splitlines()


def packed(parts: Sequence[str], width: int, indent: int = 2) -> list[str]:
    """Return parts in as few lines as they need, none of them broken."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= width:
            lines[-1] += f"  {part}"
        else:
            lines.append(f"{' ' * indent}{part}")
    return lines


def leading(parts: Sequence[str], width: int) -> str:
    """Return as many of the first parts as fit one line; of the rest none is cut."""
    line = parts[0]
    for part in parts[1:]:
        if len(line) + 2 + len(part) > width:
            break
        line += f"  {part}"
    return line
