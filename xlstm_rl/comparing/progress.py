"""How a comparison is doing: a line for each run."""

import csv
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text
from typing_extensions import Self

from xlstm_rl.comparing.job import DONE, Job, Result
from xlstm_rl.comparing.pool import Running
from xlstm_rl.runs.folder import METRICS_FILE
from xlstm_rl.runs.progress import told
from xlstm_rl.terminal import leading, wrapped

_TAIL = 1 << 14
"""Bytes at the end of a table in which its last row is looked for."""


class Board:
    """On a terminal a line for each run that is under way; elsewhere a plain line now and then.

    Args:
        total: how many runs the comparison has.
        done: how many of them were finished before.
        stream: where to; None: standard error.
        interval: seconds between two lines of one run, where `stream` is no terminal.
    """

    def __init__(
        self, total: int, done: int, stream: TextIO | None = None, interval: float = 30.0
    ) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._total, self._ended = total, done
        self._interval = interval
        self._told: dict[Path, float] = {}
        self._looked = 0.0
        console = Console(file=self._stream)
        self._live = Live(console=console, auto_refresh=False) if self._stream.isatty() else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(Text(""), refresh=True)
            self._live.stop()

    def change(self, job: Job, result: Result | None) -> None:
        """Say how a run ended; that it began is seen."""
        if result is None:
            self._told[job.folder] = time.monotonic()
            return
        self._ended += 1
        if result.status == DONE:
            how = f"return {sum(result.returns) / len(result.returns):.2f}"
            if result.success_rate is not None:
                how += f"  success {result.success_rate:.2f}"
        else:
            how = f"failed: {result.error}"
        self._say(f"{self._ended}/{self._total}  {job.name}  {how}")

    def tick(self, running: Sequence[Running]) -> None:
        """Show how far the runs are that are under way."""
        now = time.monotonic()
        if now - self._looked < 1.0:
            return
        self._looked = now
        if self._live is not None:
            width = self._live.console.width - 1  # the last column may wrap
            lines = "\n".join(_line(one, width) for one in running)
            self._live.update(Text(lines, overflow="crop", no_wrap=True), refresh=True)
            return
        for one in running:
            if now - self._told[one.job.folder] >= self._interval:
                self._told[one.job.folder] = now
                self._say(_line(one, None))

    def _say(self, line: str) -> None:
        with suppress(OSError):  # nobody reads it
            if self._live is not None:
                line = wrapped(line, self._live.console.width)
                self._live.console.print(line, markup=False, highlight=False, soft_wrap=True)
            else:
                print(line, file=self._stream, flush=True)


def _line(one: Running, width: int | None) -> str:
    """Return what fits of the state of a run, no number of it cut."""
    metrics = last_row(one.job.folder / METRICS_FILE)
    total = int(one.job.config["total_steps"])
    step = int(metrics.get("step", 0))
    how = told(step, metrics) if metrics else ["begins"]
    parts = [f"{min(100, 100 * step // total):3}%", one.job.name, *how]
    return "  ".join(parts) if width is None else leading(parts, width)


def last_row(path: Path) -> dict[str, float]:
    """Return the numbers in the last whole row of a table; empty: there is none yet."""
    try:
        with path.open("rb") as file:
            head = file.readline()
            file.seek(max(len(head), file.seek(0, 2) - _TAIL))
            lines = file.read().rpartition(b"\n")[0].splitlines()
    except OSError:
        return {}
    if not lines:
        return {}
    text = [head.decode("utf-8", "replace"), lines[-1].decode("utf-8", "replace")]
    found: dict[str, float] = {}
    for name, value in next(csv.DictReader(text), {}).items():
        with suppress(TypeError, ValueError):
            found[name] = float(value)
    return found
