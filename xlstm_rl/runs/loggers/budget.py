"""How much of a training's time the slow destinations of metrics may take."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

SHARE, CREDIT = 0.008, 0.05
"""Of the time since the start, and seconds on top."""

FREE_ROWS = 50
"""So many are written whatever they take: a short run logs every update."""

Row = tuple[int, Mapping[str, float]]


class LoggingBudget:
    """Says which rows slow destinations get, so that small policies do not wait for them.

    A row that has other names than the one before, such as an evaluation's, is never left out.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spent = 0.0
        self._rows = 0
        self._names: frozenset[str] = frozenset()
        self.left_out: Row | None = None
        """The latest row, where it was left out."""

    @property
    def has_room(self) -> bool:
        """Whether less was spent than is allowed until now."""
        elapsed = time.perf_counter() - self._began
        return self._spent <= CREDIT + SHARE * elapsed

    def takes(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Return whether a row is written."""
        names = frozenset(metrics)
        self._rows += 1
        is_written = names != self._names or self._rows <= FREE_ROWS or self.has_room
        self._names = names
        self.left_out = None if is_written else (step, metrics)
        return is_written

    @contextmanager
    def spending(self) -> Iterator[None]:
        """Count the time that passes inside."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._spent += time.perf_counter() - began
