"""How a training run is doing: a bar on a terminal, a plain line now and then elsewhere."""

import math
import sys
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.text import Text
from typing_extensions import Self

from xlstm_rl.runs.announcing import Announcing
from xlstm_rl.terminal import wrapped

_BAR, _SHORTEST_BAR = 30, 6
Advice = Callable[[float], str | None]


class TrainingProgress:
    """Shows return, episode length, speed and the time left; `update` is called per update.

    As with every program in a pipe, training ends when nobody reads what it says: `update` then
    returns False, which stops it after saving.

    Args:
        total_steps: Environment steps of the whole run.
        stream: Where to show it; None: standard error.
        interval: Seconds between two lines where `stream` is not a terminal.
        headline: A line to show once, before the first update; None: none.
        steps_done: Environment steps that were done before, by a run that goes on.
        first: What happens before the first update, said if that takes long.
        advice: What to say, once, about a run of so many steps per second; None: nothing.
    """

    def __init__(
        self,
        total_steps: int,
        stream: TextIO | None = None,
        interval: float = 5.0,
        headline: str | None = None,
        steps_done: int = 0,
        first: str = "collecting the first rollout",
        advice: Advice | None = None,
    ) -> None:
        self._total = total_steps
        self._stream = sys.stderr if stream is None else stream
        self._interval = interval
        self._headline = headline
        self._start = self._step = steps_done
        self._first = first
        self._announcing = Announcing(first, self._stream)
        self._advice = advice
        self._updates = 0
        self._began = time.monotonic()
        self._printed = -math.inf
        self._latest: tuple[int, dict[str, float]] | None = None
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._is_last = False
        self.is_unread = False

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        if self._stream.isatty():
            console = Console(file=self._stream)
            self._bar = Progress(_Line(console), console=console)
            self._task = self._bar.add_task(
                self._first, total=self._total, completed=self._start, metrics={}, step=None
            )
            self._bar.start()
        else:
            self._announcing.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._announcing.end()
        if self._bar is not None:
            self._bar.stop()
        elif self._latest is not None:
            self._say(*self._latest)

    def update(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Show the state of the run after an update; False: nobody reads it any more."""
        self._announcing.end()
        # Whole rollouts rarely make up the budget exactly: the last one that fits is the end.
        self._is_last = step + (step - self._step) > self._total
        self._step, self._updates = step, self._updates + 1
        self._show(step, metrics)
        if self._updates == 2 and self._advice is not None:  # the first one warms up
            note = self._advice(metrics.get("time/sps", math.inf))
            if note is not None:
                self._tell(note)
        return not self.is_unread

    def _show(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._headline is not None:
            self._tell(self._headline)
            self._headline = None
        if self._bar is not None:
            total = step if self._is_last else self._total
            self._bar.update(
                self._task, completed=step, total=total, step=step, metrics=dict(metrics)
            )
        elif self._is_last or time.monotonic() - self._printed >= self._interval:
            self._say(step, metrics)
            self._latest = None
            return
        self._latest = (step, dict(metrics))

    def _tell(self, line: str) -> None:
        """Show a line above the bar, or among the others."""
        if self._bar is not None:
            line = wrapped(line, self._bar.console.width)
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            self._print(line)

    def _say(self, step: int, metrics: Mapping[str, float]) -> None:
        self._printed = time.monotonic()
        done = max(1, step - self._start)
        rest = 0 if self._is_last else self._total - step
        left = (self._printed - self._began) * rest / done
        share = 100 if self._is_last else min(100, math.floor(100 * step / self._total))
        self._print(f"{share:3}%  {describe(step, metrics)}  {_clock(left)} left")

    def _print(self, line: str) -> None:
        try:
            print(line, file=self._stream, flush=True)
        except BrokenPipeError:
            self.is_unread = True


class _Line(ProgressColumn):
    """The whole line of the bar, as much of it as fits: percent, speed and time left always."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def render(self, task: Task) -> Text:
        """Return the line for the width that the terminal has now."""
        share = f"{math.floor(task.percentage):3}%"
        step: int | None = task.fields["step"]
        if step is None:
            return Text(f"{share}  {task.description}")
        metrics: Mapping[str, float] = task.fields["metrics"]
        left = task.time_remaining
        ends = [share, _speed(metrics), f"{'-:--:--' if left is None else _clock(left)} left"]
        width = self._console.width - 1  # the last column may wrap
        room = width - sum(len(part) + 2 for part in ends if part) + 2
        between: list[str] = []
        named = _told(step, metrics)
        for name, beside in (("return", 0), ("step", _SHORTEST_BAR + 2), ("length", _BAR + 2)):
            if len(named[name]) + 2 + beside <= room:
                between = [named[one] for one in named if named[one] in between or one == name]
                room -= len(named[name]) + 2
        bar = min(_BAR, room - 2)
        parts = [share, *between, *ends[1:]]
        text = Text("  ".join(part for part in parts if part), overflow="crop", no_wrap=True)
        if bar >= _SHORTEST_BAR:
            filled = min(bar, math.floor(bar * task.percentage / 100))
            text = Text.assemble(
                ("━" * filled, "bar.complete"), ("━" * (bar - filled), "bar.back"), "  ", text
            )
        return text


def told(step: int, metrics: Mapping[str, float]) -> list[str]:
    """The state of a run: `step 12,800`, `return 57.2`, `length 57`, `3,100 steps/s`."""
    return [part for part in [*_told(step, metrics).values(), _speed(metrics)] if part]


def describe(step: int, metrics: Mapping[str, float]) -> str:
    """The state of a run in a line."""
    return "  ".join(told(step, metrics))


def _told(step: int, metrics: Mapping[str, float]) -> dict[str, str]:
    parts = {"step": f"step {step:,}"}
    for name, key, form in (
        ("return", "episode/return", ".1f"),
        ("length", "episode/length", ".0f"),
    ):
        value = metrics.get(key, math.nan)
        parts[name] = f"{name} {value:{form}}" if math.isfinite(value) else f"{name} -"
    return parts


def _speed(metrics: Mapping[str, float]) -> str:
    return f"{metrics['time/sps']:,.0f} steps/s" if "time/sps" in metrics else ""


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
