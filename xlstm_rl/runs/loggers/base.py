"""What every destination of metrics is, and the logger that hands metrics to those of a run."""

import csv
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from xlstm_rl.closing import Closing, closed_on_error
from xlstm_rl.config.errors import ConfigError, one_line
from xlstm_rl.options.arguments import user_path
from xlstm_rl.runs.loggers.budget import LoggingBudget
from xlstm_rl.runs.loggers.config import LOGGERS, LoggerConfig
from xlstm_rl.runs.loggers.tables import last_step
from xlstm_rl.terminal import tell

_HISTOGRAM_SECONDS = 1.0


class Sink(Protocol):
    """One destination of metrics.

    Its class is called with the options of its kind, the run folder, which exists, and the
    resolved configuration of the run.

    With `is_slow = True` some rows are left out where updates are so short that logging would take
    more than one percent of the time; not the last one, and none with other names.
    """

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics at one step."""
        ...

    def close(self) -> None:
        """Write out what is held back and let go of files."""
        ...


@runtime_checkable
class ResumableSink(Protocol):
    """A destination that is told, before the first `write`, that a run goes on from a step."""

    def resume(self, step: int, logged: int) -> None:
        """Go on behind a step; whatever stands there of later ones will be written once more.

        Args:
            step: The last that counts.
            logged: The last that was logged before the run stopped.
        """
        ...


@runtime_checkable
class ForgettingSink(Protocol):
    """A destination that drops, before it is opened on a run that goes on, what counts no more."""

    @staticmethod
    def forget_after(folder: Path, step: int) -> None:
        """Drop what was logged of later steps."""
        ...


@runtime_checkable
class HistogramSink(Protocol):
    """A destination that takes distributions too."""

    def write_histograms(self, step: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Take the values `[N]` of each name, at one step."""
        ...


@runtime_checkable
class VideoSink(Protocol):
    """A destination that takes videos too."""

    def write_videos(self, step: int, files: Mapping[str, Path]) -> None:
        """Take the file (mp4) of each name, at one step."""
        ...


@runtime_checkable
class CheckpointSink(Protocol):
    """A destination that keeps checkpoints too."""

    def keep_checkpoint(self, step: int, folder: Path, aliases: Sequence[str]) -> None:
        """Take the files of a checkpoint, which is complete and may be removed afterwards."""
        ...


class Logger(Closing):
    """Hands metrics to every destination of a run; a context manager that closes them.

    Those that were made are closed where the next one cannot be made. One that fails later does not
    stop the training: a line says so, once, and it gets nothing more, unless it recovers by itself
    (`recovers`).
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks: tuple[Sink, ...] = ()
        self._failing: set[Sink] = set()
        self._budget = LoggingBudget()
        self._last_histograms = float("-inf")
        with closed_on_error(self.close):
            for sink in sinks:
                self._sinks += (sink,)
        # Sorted once: asking a protocol takes as long as writing a row.
        self._slow = [sink for sink in self._sinks if getattr(sink, "is_slow", False)]
        self._fast = [sink for sink in self._sinks if not getattr(sink, "is_slow", False)]
        self._showing = [sink for sink in self._sinks if isinstance(sink, HistogramSink)]

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics (numbers, or tensors of one element) at an environment step."""
        numbers = {key: float(value) for key, value in metrics.items() if key != "step"}
        for sink in self._fast:
            self._write(sink, step, numbers)
        if self._slow and self._budget.takes(step, numbers):
            self._write_slowly(step, numbers)

    def _write(self, sink: Sink, step: int, numbers: Mapping[str, float]) -> None:
        self._hand(sink, step, lambda: sink.write(step, numbers))

    def _hand(self, sink: Sink, step: int, give: Callable[[], None]) -> None:
        """Give a destination something, unless it fails."""
        if sink in self._failing and not getattr(sink, "recovers", False):
            return
        try:
            give()
        except Exception as error:  # whatever a server, a disk or somebody's class may do
            if sink not in self._failing:
                name, what = type(sink).__name__, one_line(error) or type(error).__name__
                tell(f"{name}: step {step} is not logged: {what}")
            self._failing.add(sink)
        else:
            self._failing.discard(sink)

    def _write_slowly(self, step: int, numbers: Mapping[str, float]) -> None:
        with self._budget.spending():
            for sink in self._slow:
                self._write(sink, step, numbers)

    def _catch_up(self) -> None:
        """Write the latest row where it was left out."""
        row, self._budget.left_out = self._budget.left_out, None
        if row is not None:
            self._write_slowly(*row)

    def histograms(self, step: int, values: Mapping[str, Any]) -> None:
        """Log distributions, such as actions or gates: for each name an array or tensor, any shape.

        Of what is not finite nothing is logged. TensorBoard and W&B show them, tables do not.
        """
        self._last_histograms = time.monotonic()
        with self._budget.spending():
            finite = {key: _finite(one) for key, one in values.items()}
            finite = {key: one for key, one in finite.items() if one.size}
            for sink in self._showing:
                self._hand(sink, step, _later(sink.write_histograms, step, finite))

    @property
    def takes_histograms(self) -> bool:
        """Whether somebody shows them, and the last ones are a second old.

        They take milliseconds, as long as some updates.
        """
        if not self._showing:
            return False
        is_time = time.monotonic() - self._last_histograms >= _HISTOGRAM_SECONDS
        return is_time and self._budget.has_room

    def videos(self, step: int, files: Mapping[str, str | Path]) -> None:
        """Log videos: for each name a file (mp4), such as an evaluation's."""
        paths = {key: Path(file) for key, file in files.items()}
        for sink in self._sinks:
            if isinstance(sink, VideoSink):
                self._hand(sink, step, _later(sink.write_videos, step, paths))

    def checkpoint(self, step: int, folder: str | Path, aliases: Sequence[str] = ()) -> None:
        """Keep a checkpoint where destinations can, under names of its own beside `latest`.

        Args:
            step: environment steps done.
            folder: of the checkpoint, complete.
            aliases: such as `("best",)`.
        """
        self._catch_up()
        for sink in self._sinks:
            if isinstance(sink, CheckpointSink):
                self._hand(sink, step, _later(sink.keep_checkpoint, step, Path(folder), aliases))

    def close(self) -> None:
        """Close every destination, also where another cannot be closed."""
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)
            self._catch_up()


def make_logger(
    config: LoggerConfig,
    run_dir: str | Path,
    run_config: Mapping[str, Any],
    resumed_at: int | None = None,
) -> Logger:
    """Return the logger of a run: `metrics.csv`, and what the configuration adds.

    Args:
        config: Which destinations.
        run_dir: The run folder, which exists; every file of every destination lies in it.
        run_config: The resolved configuration of the run, shown by W&B.
        resumed_at: The step that a run goes on from: what was logged of later ones does not count.

    Raises:
        ConfigError: What was logged before cannot be gone on from.
    """
    names = LOGGERS.names(config.kind)
    kinds = [] if "none" in names else ["csv", *[name for name in names if name != "csv"]]
    folder = user_path(run_dir)
    logged = resumed_at if resumed_at is None else max(resumed_at, last_step(folder))

    def made(kind: str) -> Sink:
        try:
            return opened(kind)
        except (ValueError, csv.Error, IsADirectoryError) as error:
            if resumed_at is None or isinstance(error, ConfigError):
                raise
            raise ConfigError(
                f"run folder {folder}: what logger {kind} wrote before step {resumed_at} is "
                f"damaged ({one_line(error)}): move its file away to begin a new one"
            ) from error

    def opened(kind: str) -> Sink:
        target = LOGGERS.target(kind)
        if resumed_at is not None and isinstance(target, ForgettingSink):
            target.forget_after(folder, resumed_at)
        sink: Sink = target(config, folder, run_config)
        if resumed_at is not None and logged is not None and isinstance(sink, ResumableSink):
            with closed_on_error(sink.close):
                sink.resume(resumed_at, logged)
        return sink

    return Logger(made(kind) for kind in kinds)


def _later(call: Callable[..., None], *args: Any) -> Callable[[], None]:
    return lambda: call(*args)


def _finite(values: Any) -> NDArray[Any]:
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values).ravel()
    array = array.astype(np.float64, copy=False)
    found: NDArray[Any] = array[np.isfinite(array)]
    return found
