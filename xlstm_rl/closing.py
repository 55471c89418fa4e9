"""Letting go of what was opened: at the end, and when what follows fails."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from typing_extensions import Self


class Closing(ABC):
    """What a `with` statement closes at its end."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def closed_on_error(close: Callable[[], object]) -> Iterator[None]:
    """Call `close` if the block raises; an error of closing does not hide the first one."""
    try:
        yield
    except BaseException:
        with suppress(Exception):
            close()
        raise
