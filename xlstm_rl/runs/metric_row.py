"""One row of metrics for several updates, so that short updates do not wait for logging."""

import copy
import math
from collections.abc import Mapping
from typing import Any

_LATEST = ("episode/", "info/")
"""What is a mean over the most recent episodes already: of several updates the last one counts."""

_RATE = "time/sps"


class MetricRow:
    """Gathers the metrics of updates until their row is due, and holds the mean of each.

    Of `episode/` and `info/` the row has the last value; `time/sps` is the steps over the time of
    all its updates. Values that are not numbers (NaN) count only where there is nothing else.

    Args:
        interval: updates of a row.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._before: frozenset[str] | None = None
        self._values: dict[str, list[float]] = {}
        self._step = self._until = 0
        self._expected: tuple[int, Mapping[str, Any], int] | None = None

    def expect(self, step: int, metrics: Mapping[str, Any], update: int) -> None:
        """Tell what will be added next: what is saved from now on counts it, and its row as taken.

        Callbacks save between the end of an update and its row. `metrics` may still grow.
        """
        self._expected = step, metrics, update

    def add(self, step: int, metrics: Mapping[str, Any], update: int) -> bool:
        """Take the metrics of an update, and return whether the row is due.

        It is at every multiple of the interval, and where a metric is there that the update before
        did not have, such as an evaluation's, which so stands at its own step.

        Args:
            step: environment steps done.
            metrics: numbers, or tensors of one element.
            update: the update's number.
        """
        self._expected = None
        self._step = step
        for name, value in metrics.items():
            self._values.setdefault(name, []).append(float(value))
        before, self._before = self._before, frozenset(metrics)
        is_new = before is not None and not self._before <= before
        return is_new or update % self._interval == 0

    def take(self) -> tuple[int, dict[str, float]] | None:
        """Return the step and the metrics of the row, and begin the next one; None: it is empty."""
        if not self._values:
            return None
        row = {name: _one(name, values) for name, values in self._values.items()}
        self._values, self._until = {}, self._step
        return self._step, row

    def rows_until(self, step: int) -> int:
        """Return the step to which a run has whole rows, where it has done so many steps."""
        return self._until if self._values else step

    def state(self) -> dict[str, Any]:
        """Return what a resumed run needs, so that its rows cover the same updates."""
        if self._expected is not None:
            behind = copy.copy(self)
            behind._values = {name: [*values] for name, values in self._values.items()}
            if behind.add(*self._expected):
                behind.take()
            if behind._before is not None:  # callbacks behind the one that saves may add their own
                behind._before |= self._before or frozenset()
            return behind.state()
        return {
            "step": self._step,
            "until": self._until,
            "values": {name: list(values) for name, values in self._values.items()},
            "before": None if self._before is None else sorted(self._before),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on with a row that was begun."""
        before = state["before"]
        self._step, self._until = int(state["step"]), int(state["until"])
        self._values = {
            str(name): [float(one) for one in values] for name, values in state["values"].items()
        }
        self._before = None if before is None else frozenset(before)


def _one(name: str, values: list[float]) -> float:
    if len(values) == 1 or name.startswith(_LATEST):
        return values[-1]
    numbers = [value for value in values if not math.isnan(value)]
    if not numbers:
        return values[-1]
    if name == _RATE:  # every update has as many steps
        return len(numbers) / sum(1.0 / one for one in numbers)
    return math.fsum(numbers) / len(numbers) if all(map(math.isfinite, numbers)) else sum(numbers)
