"""What an agent writes while it trains: run folders, checkpoints, metrics."""

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlstm_rl.options.arguments import user_path
from xlstm_rl.policy.policy import Policy
from xlstm_rl.runs.checkpoint import write_checkpoint
from xlstm_rl.runs.folder import create_run_folder, latest_checkpoint, new_checkpoint
from xlstm_rl.runs.loggers import Logger, LoggerConfig, make_logger
from xlstm_rl.runs.signals import signals_held


class Run:
    """The files of one agent's training.

    There are none until the folder is opened; then `log` writes into it.

    Args:
        config: the resolved configuration of the whole run.
        logger: where metrics go.
        run_dir: the folder, which must be new or empty; None: a new one under `runs/`.
        keep: how many checkpoints stay on disk.
    """

    def __init__(
        self, config: Mapping[str, Any], logger: LoggerConfig, run_dir: str | None, keep: int
    ) -> None:
        self.folder: Path | None = None
        self._config = config
        self._logger_config = logger
        self._run_dir = run_dir
        self._keep = keep
        self._made: set[Path] = set()
        self._logger: Logger | None = None
        self._close_logger: weakref.finalize[[], Run] | None = None

    def open(self) -> Path:
        """Make the run folder, unless it is there, and return it.

        Raises:
            ConfigError: something stands there already; nothing in it is touched.
        """
        if self.folder is None:
            self.folder = self._create(self._run_dir)
        return self.folder

    def open_logger(self) -> None:
        """Make ready to log, and the run folder too where there is a logger or a `run_dir`.

        A logger that is open stays: a run has one until `close`, or until nobody holds the run.
        """
        if self._logger_config.kind != "none" or self._run_dir is not None:
            self.open()
        if self.folder is not None and self._logger is None:
            self._logger = make_logger(self._logger_config, self.folder, self._config)
            self._close_logger = weakref.finalize(self, self._logger.close)
            # At exit every row is on disk, and W&B ends its runs itself, with the exit status.
            self._close_logger.atexit = False

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one step, if there is a run folder."""
        if self._logger is not None:
            self._logger.log(step, metrics)

    @property
    def takes_histograms(self) -> bool:
        """Whether histograms are shown somewhere, and it is time for the next ones."""
        return self._logger is not None and self._logger.takes_histograms

    def histograms(self, step: int, values: Mapping[str, Any]) -> None:
        """Log distributions at one step, where they are shown."""
        if self._logger is not None:
            self._logger.histograms(step, values)

    def save(self, run_dir: str | Path, policy: Policy, trainer_state: Mapping[str, Any]) -> Path:
        """Write a checkpoint into a folder that is new or empty, or was made here before.

        Ctrl-C and the like wait until it is complete.

        Raises:
            ConfigError: the folder holds something else; nothing in it is touched.
        """
        path = user_path(run_dir)
        if path.resolve() not in self._made:
            self._create(path)
        with signals_held(), new_checkpoint(path, trainer_state["steps_done"], self._keep) as draft:
            write_checkpoint(draft, policy, dict(trainer_state))
        if self._logger is not None and path == self.folder:
            self._logger.checkpoint(trainer_state["steps_done"], latest_checkpoint(path))
        return path

    def close(self) -> None:
        """Close the logger."""
        self._logger = None
        if self._close_logger is not None:
            self._close_logger()  # once: afterwards it does nothing

    def _create(self, path: str | Path | None) -> Path:
        config = self._config
        folder = create_run_folder(
            path,
            config,
            env=config["env"]["id"],
            memory=config["memory"]["kind"],
            seed=config["seed"],
        )
        self._made.add(folder.resolve())
        return folder
