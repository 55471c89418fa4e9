"""Where the metrics of a run go: metrics.csv, TensorBoard, Weights & Biases.

`metrics.csv` is written whatever else is, so that plots and comparisons need no account and no
other program. TensorBoard and W&B are called directly: TorchRL's loggers would add its import
of two seconds and log one scalar at a time.
"""

import csv
import netrc
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol
from urllib.parse import urlparse
from weakref import WeakSet

from xlstm_rl.config.errors import one_line
from xlstm_rl.files import replacing
from xlstm_rl.options.section import Section
from xlstm_rl.runs.folder import METRICS_FILE

FIRST_COLUMNS = ("step", "episode/return", "episode/length", "time/sps")
"""The columns that every metrics.csv begins with."""


@dataclass(frozen=True)
class LoggerConfig(Section):
    """Where metrics go, besides the metrics.csv of every kind but `none`."""

    section = "logger"

    kind: Literal["csv", "tensorboard", "wandb", "none"] = "csv"
    """`csv`: metrics.csv in the run folder. `tensorboard`, `wandb`: that and metrics.csv."""

    project: str = "xlstm_rl"
    """W&B project."""

    name: str | None = None
    """W&B name of the run; None: the name of the run folder."""

    group: str | None = None
    """W&B group, such as one name for all seeds of an experiment."""

    tags: tuple[str, ...] = ()
    """W&B tags."""


class Sink(Protocol):
    """One destination of metrics."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Take the metrics at one step."""
        ...

    def close(self) -> None:
        """Write out what is held back and let go of files."""
        ...


class Logger:
    """Hands metrics to every destination of a run; a context manager that closes them."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self._sinks = tuple(sinks)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log metrics (numbers, or tensors of one element) at an environment step."""
        numbers = {key: float(value) for key, value in metrics.items() if key != "step"}
        for sink in self._sinks:
            sink.write(step, numbers)

    def close(self) -> None:
        """Close every destination."""
        for sink in self._sinks:
            sink.close()

    def __enter__(self) -> "Logger":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def make_logger(config: LoggerConfig, run_dir: str | Path, run_config: Mapping[str, Any]) -> Logger:
    """The logger of a run.

    Args:
        config: Which destinations.
        run_dir: The run folder, which exists; every file of every destination lies in it.
        run_config: The resolved configuration of the run, shown by W&B.
    """
    folder = Path(run_dir)
    if config.kind == "none":
        return Logger([])
    sinks: list[Sink] = [CsvSink(folder / METRICS_FILE)]
    if config.kind == "tensorboard":
        sinks.append(TensorBoardSink(folder / "tensorboard"))
    elif config.kind == "wandb":
        sinks.append(WandbSink(config, folder, run_config))
    return Logger(sinks)


class CsvSink:
    """A row per step. A metric that is missing leaves its cell empty.

    A metric that appears later gets a column at the end, and the file is written anew once.
    Opened on an existing file, it goes on below its last row.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._columns = list(FIRST_COLUMNS)
        if path.exists() and path.stat().st_size:
            with path.open(newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file))
            self._open("a")
        else:
            self._open("w")
            self._writer.writerow(self._columns)
            self._file.flush()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a row and flush it, so that a killed run keeps it."""
        new = [key for key in metrics if key not in self._columns]
        if new:
            self._add_columns(new)
        row = {**metrics, "step": step}
        self._writer.writerow([row.get(column, "") for column in self._columns])
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self, mode: str) -> None:
        self._file = self._path.open(mode, newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def _add_columns(self, new: list[str]) -> None:
        self._file.close()
        try:
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))[1:]
            with (
                replacing(self._path) as draft,
                draft.open("w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(self._columns + new)
                writer.writerows(row + [""] * len(new) for row in rows)
            self._columns += new
        finally:
            self._open("a")


class TensorBoardSink:
    """TensorBoard event files under `tensorboard/` of the run folder."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=str(folder))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a scalar per metric, and flush them, so that a killed run keeps them."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write the last events."""
        self._writer.close()


_our_wandb_runs: "WeakSet[Any]" = WeakSet()
"""The W&B runs that were started here, and so are closed here."""


class WandbSink:
    """A W&B run, against `step`: the one that the user has open, or else one of ours.

    A user's run (`wandb.init` before training) gets the metrics and the configuration, whose keys
    are prefixed where the user's own say something else, and stays open. Should the user close it,
    what follows goes into the one that is open then. The files of a run of ours lie under `wandb/`
    of the run folder. It never asks for anything: without a key, and where W&B cannot be reached,
    it is recorded offline, which one printed line says.
    """

    def __init__(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        self._config, self._folder, self._run_config = config, folder, run_config
        self._choose_run()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log one point of every metric."""
        if self._is_current and wandb_run() is not self._run:  # somebody has closed it
            self._choose_run()
        if not self._is_ours:
            # One by one: the user's own metrics keep the axis that they have.
            for key in metrics.keys() - self._on_our_axis:
                self._run.define_metric(key, step_metric="step")
            self._on_our_axis |= metrics.keys()
        self._run.log({"step": step, **metrics})

    def close(self) -> None:
        """Finish a run of ours; W&B's own process uploads or writes what is left."""
        if self._is_ours:
            self._run.finish()

    def _choose_run(self) -> None:
        current = wandb_run()
        self._is_ours = current is None or current in _our_wandb_runs
        self._on_our_axis: set[str] = set()
        if self._is_ours:
            # Another agent may have one open: W&B would hand that out instead of a new one.
            self._run = self._start(None if current is None else "create_new")
            self._run.define_metric("*", step_metric="step")
            _our_wandb_runs.add(self._run)
        else:
            self._run = current
            theirs = dict(self._run.config)
            values = {
                key if theirs.get(key, value) == value else f"xlstm_rl.{key}": value
                for key, value in self._run_config.items()
            }
            self._run.config.update(values, allow_val_change=True)
        self._is_current = wandb_run() is self._run

    def _start(self, reinit: Literal["create_new"] | None) -> Any:
        import wandb

        config, folder = self._config, self._folder

        def start(mode: Literal["offline"] | None) -> Any:
            return wandb.init(
                project=config.project,
                name=config.name or folder.name,
                group=config.group,
                tags=config.tags or None,
                config=dict(self._run_config),
                dir=str(folder),
                mode=mode,
                reinit=reinit,
                settings=wandb.Settings(console="off", silent=True, init_timeout=30),
            )

        sync = f"recording offline; `wandb sync {folder}/wandb/offline-run-*` uploads it"
        asked = os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
        if asked not in ("offline", "dryrun", "disabled") and not has_wandb_key():
            print(f"wandb: no API key, {sync}", file=sys.stderr)
            return start("offline")
        try:
            return start(None)
        except Exception as error:  # a broken network or server must not cost the run
            print(f"wandb: {one_line(error)}, {sync}", file=sys.stderr)
            return start("offline")


def wandb_run() -> Any:
    """Return the W&B run that is open in this process, or None."""
    import wandb

    return wandb.run


def has_wandb_key() -> bool:
    """Whether W&B can log in without asking: by environment, netrc or its settings."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    import wandb

    settings = wandb.setup().settings
    host = urlparse(settings.base_url).hostname or ""
    try:
        path = os.environ.get("NETRC") or os.path.expanduser("~/.netrc")
        return bool(netrc.netrc(path).authenticators(host) or settings.api_key)
    except (OSError, netrc.NetrcParseError):
        return bool(settings.api_key)
