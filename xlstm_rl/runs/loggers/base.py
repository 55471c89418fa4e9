"""What every destination of metrics is, and the logger that hands metrics to those of a run."""

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from xlstm_rl.closing import Closing, closed_on_error
from xlstm_rl.config.errors import one_line
from xlstm_rl.options.arguments import user_path
from xlstm_rl.runs.loggers.config import LOGGERS, LoggerConfig
from xlstm_rl.runs.loggers.tables import last_step


class Sink(Protocol):
    """One destination of metrics.

    Its class is called with the options of its kind, the run folder, which exists, and the
    resolved configuration of the run.
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


class Logger(Closing):
    """Hands metrics to every destination of a run; a context manager that closes them.

    Those that were made are closed where the next one cannot be made. One that fails later does not
    stop the training: a line says so, once, and it gets nothing more, unless it recovers by itself
    (`recovers`).
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks: tuple[Sink, ...] = ()
        self._failing: set[Sink] = set()
        with closed_on_error(self.close):
            for sink in sinks:
                self._sinks += (sink,)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics (numbers, or tensors of one element) at an environment step."""
        numbers = {key: float(value) for key, value in metrics.items() if key != "step"}
        for sink in self._sinks:
            if sink in self._failing and not getattr(sink, "recovers", False):
                continue
            try:
                sink.write(step, numbers)
            except Exception as error:  # whatever a server, a disk or somebody's class may do
                if sink not in self._failing:
                    name, what = type(sink).__name__, one_line(error) or type(error).__name__
                    print(f"{name}: step {step} is not logged: {what}", file=sys.stderr)
                self._failing.add(sink)
            else:
                self._failing.discard(sink)

    def close(self) -> None:
        """Close every destination, also where another cannot be closed."""
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)


def make_logger(
    config: LoggerConfig,
    run_dir: str | Path,
    run_config: Mapping[str, Any],
    resumed_at: int | None = None,
) -> Logger:
    """The logger of a run: `metrics.csv`, and what the configuration adds; with `none` nothing.

    Args:
        config: Which destinations.
        run_dir: The run folder, which exists; every file of every destination lies in it.
        run_config: The resolved configuration of the run, shown by W&B.
        resumed_at: The step that a run goes on from: what was logged of later ones does not count.
    """
    names = LOGGERS.names(config.kind)
    kinds = [] if "none" in names else ["csv", *[name for name in names if name != "csv"]]
    folder = user_path(run_dir)
    logged = resumed_at if resumed_at is None else max(resumed_at, last_step(folder))

    def made(kind: str) -> Sink:
        sink: Sink = LOGGERS.target(kind)(config, folder, run_config)
        if resumed_at is not None and logged is not None and isinstance(sink, ResumableSink):
            with closed_on_error(sink.close):
                sink.resume(resumed_at, logged)
        return sink

    return Logger(made(kind) for kind in kinds)
