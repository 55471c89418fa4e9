"""A pipe that nobody reads any more, as in `xlstm-rl train --help | head -1`."""

import os
import select
import sys
from contextlib import suppress
from typing import TextIO

from xlstm_rl.terminal import tell

PIPE_CLOSED = 141
"""The exit status of a program that SIGPIPE ends: 128 + 13."""


def say(message: str, stream: TextIO | None = None) -> None:
    """Print a line, on standard output or another stream, if there is anybody to read it.

    On a terminal it is wrapped, but for a message that has several lines already.
    """
    try:
        if "\n" in message:
            print(message, file=stream, flush=True)
        else:
            tell(message, sys.stdout if stream is None else stream)
    except OSError:  # a closed pipe, or a terminal that is gone
        is_output_unread()


def replace_closed_streams() -> None:
    """Give what was started with `>&-` or `2>&-` somewhere to print to.

    Also, the next file that is opened would get the number of a closed stream, and with it what
    programs in C print.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115


def is_output_unread() -> bool:
    """Whether standard output or standard error is a pipe without a reader, or a lost terminal.

    What they still hold is dropped, so that Python does not complain about it at exit.
    """
    unread = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # no file, such as a notebook's stream
            poll = select.poll()
            poll.register(stream.fileno(), 0)
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0)):
                unread = True
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)
    return unread
