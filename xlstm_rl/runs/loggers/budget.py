"""How much of a training's time a destination of metrics may take."""

import time
from collections.abc import Mapping

SHARE, CREDIT = 0.01, 1.0
"""Of the time since the start, and seconds on top: a short or a slow run logs every update."""

Row = tuple[int, Mapping[str, float]]


class LoggingBudget:
    """Says which rows a slow destination gets, so that small policies do not wait for it.

    A row that has other names than the one before, such as an evaluation's, is never left out.
    """

    def __init__(self) -> None:
        self._began = time.perf_counter()
        self._spent = 0.0
        self._names: frozenset[str] = frozenset()
        self.left_out: Row | None = None
        """The latest row, where it was left out."""

    def takes(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Return whether a row is written."""
        names = frozenset(metrics)
        is_rare, self._names = names != self._names, names
        elapsed = time.perf_counter() - self._began
        is_written = is_rare or self._spent <= CREDIT + SHARE * elapsed
        self.left_out = None if is_written else (step, metrics)
        return is_written

    def spend(self, seconds: float) -> None:
        """Count the time that a row took."""
        self._spent += seconds
