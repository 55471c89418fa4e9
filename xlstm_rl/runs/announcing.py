"""A line about what a program is doing, where that takes longer than somebody likes to wait."""

import sys
import threading
from contextlib import suppress
from typing import TextIO

from typing_extensions import Self

from xlstm_rl.terminal import tell

PATIENCE = 3.0
"""Seconds without a word."""


class Announcing:
    """Says what is going on inside it, once, if that has not ended after a while.

    Short work says nothing, so that where it fails the error is the only line.

    Args:
        what: Such as `making 16 environments`.
        stream: Where to; None: standard error.
    """

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self._what = what
        self._stream = sys.stderr if stream is None else stream
        self._timer = threading.Timer(PATIENCE, self._say)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Be silent from now on."""
        self._timer.cancel()

    def _say(self) -> None:
        with suppress(OSError, ValueError):  # nobody reads it, or the stream is closed
            tell(f"{self._what} ...", self._stream)
