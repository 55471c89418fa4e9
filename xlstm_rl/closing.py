"""Letting go of what was opened, when what follows fails."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


@contextmanager
def closed_on_error(close: Callable[[], object]) -> Iterator[None]:
    """Call `close` if the block raises; an error of closing does not hide the first one."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            close()
        raise
