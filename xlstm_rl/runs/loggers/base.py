"""What every destination of metrics is, and the logger that hands metrics to those of a run."""

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from xlstm_rl.closing import Closing, closed_on_error
from xlstm_rl.options.arguments import user_path
from xlstm_rl.runs.loggers.config import LOGGERS, LoggerConfig


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


class Logger(Closing):
    """Hands metrics to every destination of a run; a context manager that closes them.

    Those that were made are closed where the next one cannot be made.
    """

    def __init__(self, sinks: Iterable[Sink]) -> None:
        self._sinks: tuple[Sink, ...] = ()
        with closed_on_error(self.close):
            for sink in sinks:
                self._sinks += (sink,)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics (numbers, or tensors of one element) at an environment step."""
        numbers = {key: float(value) for key, value in metrics.items() if key != "step"}
        for sink in self._sinks:
            sink.write(step, numbers)

    def close(self) -> None:
        """Close every destination, also where another cannot be closed."""
        with ExitStack() as stack:
            for sink in reversed(self._sinks):
                stack.callback(sink.close)


def make_logger(config: LoggerConfig, run_dir: str | Path, run_config: Mapping[str, Any]) -> Logger:
    """The logger of a run: `metrics.csv`, and what the configuration adds; with `none` nothing.

    Args:
        config: Which destinations.
        run_dir: The run folder, which exists; every file of every destination lies in it.
        run_config: The resolved configuration of the run, shown by W&B.
    """
    names = LOGGERS.names(config.kind)
    kinds = [] if "none" in names else ["csv", *[name for name in names if name != "csv"]]
    return Logger(LOGGERS.target(kind)(config, user_path(run_dir), run_config) for kind in kinds)
