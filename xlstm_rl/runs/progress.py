"""How a training run is doing: a bar on a terminal, a plain line now and then elsewhere."""

import math
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from typing_extensions import Self


class TrainingProgress:
    """Shows return, episode length, speed and the time left; `update` is called per update.

    As with every program in a pipe, training ends when nobody reads what it says: `update` then
    returns False, which stops it after saving.

    Args:
        total_steps: Environment steps of the whole run.
        stream: Where to show it; None: standard error.
        interval: Seconds between two lines where `stream` is not a terminal.
        headline: A line to show once, before the first update; None: none.
    """

    def __init__(
        self,
        total_steps: int,
        stream: TextIO | None = None,
        interval: float = 5.0,
        headline: str | None = None,
    ) -> None:
        self._total = total_steps
        self._stream = sys.stderr if stream is None else stream
        self._interval = interval
        self._headline = headline
        self._began = time.monotonic()
        self._printed = -math.inf
        self._latest: tuple[int, dict[str, float]] | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self.is_unread = False

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._stream.isatty():
            self._bar = Progress(
                BarColumn(bar_width=30),
                TaskProgressColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
                TextColumn("left"),
                console=Console(file=self._stream),
            )
            self._task = self._bar.add_task("starting", total=self._total)
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            if kind is None and self._latest is not None:
                # Whole rollouts rarely make up the budget exactly; a finished bar is full.
                self._bar.update(self._task, total=self._latest[0])
            self._bar.stop()
        elif self._latest is not None:
            self._say(*self._latest)

    def update(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Show the state of the run after an update; False: nobody reads it any more."""
        self._show(step, metrics)
        return not self.is_unread

    def _show(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._bar is not None and self._headline is not None:
            self._bar.console.print(self._headline, markup=False, highlight=False, soft_wrap=True)
            self._headline = None
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=describe(step, metrics))
        elif time.monotonic() - self._printed >= self._interval:
            self._say(step, metrics)
            self._latest = None
            return
        self._latest = (step, dict(metrics))

    def _say(self, step: int, metrics: Mapping[str, float]) -> None:
        try:
            self._print(step, metrics)
        except BrokenPipeError:
            self.is_unread = True

    def _print(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._headline is not None:
            print(self._headline, file=self._stream)
            self._headline = None
        self._printed = time.monotonic()
        left = (self._printed - self._began) * (self._total - step) / max(1, step)
        share = f"{100 * step / self._total:3.0f}%"
        line = f"{share}  {describe(step, metrics)}  {_clock(max(0.0, left))} left"
        print(line, file=self._stream, flush=True)


def describe(step: int, metrics: Mapping[str, float]) -> str:
    """The state of a run in words: `step 12,800  return 57.2  length 57  3,100 steps/s`."""
    parts = [f"step {step:,}"]
    for name, key, form in (
        ("return", "episode/return", ".1f"),
        ("length", "episode/length", ".0f"),
    ):
        value = metrics.get(key, math.nan)
        parts.append(f"{name} {value:{form}}" if math.isfinite(value) else f"{name} -")
    if "time/sps" in metrics:
        parts.append(f"{metrics['time/sps']:,.0f} steps/s")
    return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
