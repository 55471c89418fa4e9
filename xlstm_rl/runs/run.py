"""What an agent writes while it trains: run folders, checkpoints, metrics."""

import copy
import json
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from xlstm_rl.config import ConfigError
from xlstm_rl.config.errors import one_line
from xlstm_rl.errors import TrainingError
from xlstm_rl.options.arguments import user_path
from xlstm_rl.policy.policy import Policy
from xlstm_rl.runs.checkpoint import write_checkpoint
from xlstm_rl.runs.folder import (
    EVALUATION_FILE,
    create_run_folder,
    find_checkpoint,
    latest_checkpoint,
    new_best,
    new_checkpoint,
)
from xlstm_rl.runs.lock import run_locked
from xlstm_rl.runs.loggers import Logger, LoggerConfig, make_logger
from xlstm_rl.runs.signals import signals_held
from xlstm_rl.runs.standing import replacing_run, write_config
from xlstm_rl.terminal import tell


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
        self.config: dict[str, Any] = dict(config)
        self.saved_step: int | None = None
        """The step of the last checkpoint in the run folder."""
        self._logger_config = logger
        self._run_dir = run_dir
        self._keep = keep
        self._made: set[Path] = set()
        self._logger: Logger | None = None
        self._close_logger: weakref.finalize[[], Run] | None = None
        self._resumed_at: int | None = None
        self._rows_until: int | None = None

    def resume(self, folder: Path, step: int, run_dir: str | None, rows_until: int) -> None:
        """Go on in the folder of a run, whose later rows are dropped when it is opened.

        Args:
            folder: where it is now.
            step: what it has come to.
            run_dir: what its configuration calls it.
            rows_until: the step to which its rows count; a row that was not whole is logged again.
        """
        self.folder, self._resumed_at, self._rows_until = folder, step, rows_until
        self.config["run_dir"] = run_dir
        self._made.add(folder.resolve())
        self.saved_step = step

    def open(self) -> Path:
        """Make the run folder, unless it is there, and return it.

        Raises:
            ConfigError: something stands there already; nothing in it is touched.
        """
        if self.folder is None:
            self.folder = self._create(self._run_dir)
        return self.folder

    @contextmanager
    def training(self, total_steps: int, horizon: int | None) -> Iterator[None]:
        """Hold the run's lock, and make ready to log.

        There is a run folder where there is a logger or a `run_dir`, or where it was opened. A
        logger that is open stays: a run has one until `close`, or until nobody holds the run.

        Args:
            total_steps: what the run's configuration is to say of its length,
            horizon: and of where its schedules end.

        Raises:
            ConfigError: another process trains in the folder, or it cannot be made or written to.
        """
        said = {**self.config, "total_steps": total_steps, "horizon": horizon}
        has_changed, self.config = said != self.config, said
        if self._logger_config.kind != "none" or self._run_dir is not None:
            self.open()
        with nullcontext() if self.folder is None else run_locked(self.folder):
            if self.folder is not None:
                resumed_at = self._resumed_at
                self._open_logger(self.folder)  # refuses what it cannot go on from
                if has_changed or resumed_at is not None:
                    write_config(self.folder, self.config, resumed_at)
            yield

    def _open_logger(self, folder: Path) -> None:
        if self._logger is None:
            self._logger = make_logger(self._logger_config, folder, self.config, self._rows_until)
            self._close_logger = weakref.finalize(self, self._logger.close)
            # At exit every row is on disk, and W&B ends its runs itself, with the exit status.
            self._close_logger.atexit = False
        self._resumed_at = self._rows_until = None

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of one step, if there is a run folder."""
        if self._logger is not None:
            self._logger.log(step, metrics)

    def save(
        self,
        run_dir: str | Path,
        policy: Policy,
        trainer_state: Mapping[str, Any],
        overwrite: bool = False,
    ) -> Path:
        """Write a checkpoint into a folder that is new or empty, or was made here before.

        Ctrl-C and the like wait until it is complete.

        Args:
            run_dir: the folder.
            policy: the policy.
            trainer_state: what training needs beyond it.
            overwrite: replace a run that stands there; nothing else is ever replaced.

        Raises:
            ConfigError: the folder holds something else; nothing in it is touched.
            TrainingError: it cannot be written, for a full disk or want of permission; what was
                saved before stands.
        """
        path = user_path(run_dir)
        if path.resolve() in self._made:
            self._write(path, policy, trainer_state)
        elif overwrite and path.is_dir() and any(path.iterdir()):
            with replacing_run(path) as draft:
                self._write(self._create(draft), policy, trainer_state)
            self._made.add(path.resolve())
        else:
            self._write(self._create(path), policy, trainer_state)
        return path

    def _write(self, path: Path, policy: Policy, trainer_state: Mapping[str, Any]) -> None:
        step = trainer_state["steps_done"]
        try:
            with signals_held(), new_checkpoint(path, step, self._keep) as draft:
                write_checkpoint(draft, policy, trainer_state)
        except (OSError, SafetensorError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or one_line(error)
            before = "there is none before it"
            if self.saved_step is not None:
                before = f"the last one is that of step {self.saved_step}"
            raise TrainingError(
                f"run folder {path}: the checkpoint of step {step} cannot be written: {why}; "
                f"{before}"
            ) from error
        if path == self.folder:
            self.saved_step = step
            if self._logger is not None:
                self._logger.checkpoint(step, latest_checkpoint(path))

    @property
    def takes_histograms(self) -> bool:
        """Whether histograms are shown somewhere, and it is time for the next ones."""
        return self._logger is not None and self._logger.takes_histograms

    def histograms(self, step: int, values: Mapping[str, Any]) -> None:
        """Log distributions at one step, where they are shown."""
        if self._logger is not None:
            self._logger.histograms(step, values)

    def save_opened(self, policy: Policy, trainer_state: Mapping[str, Any]) -> bool:
        """Write a checkpoint into the run folder, and return whether there is one.

        Raises:
            TrainingError: it cannot be written; what was saved before stands.
        """
        if self.folder is None:
            return False
        self.save(self.folder, policy, trainer_state)
        return True

    def save_if_possible(self, policy: Policy, trainer_state: Mapping[str, Any]) -> bool:
        """Do as `save_opened`; where it fails, say so in a line, and return that it did."""
        try:
            return self.save_opened(policy, trainer_state)
        except (TrainingError, ConfigError) as error:
            tell(f"xlstm_rl: {one_line(error)}")
            return False

    def save_best(
        self, policy: Policy, trainer_state: Mapping[str, Any], evaluation: Mapping[str, Any]
    ) -> None:
        """Write `best/` into the run folder, if there is one, with what its evaluation found.

        Where that fails, say so in a line and go on.
        """
        if self.folder is None:
            return
        try:
            with signals_held(), new_best(self.folder) as draft:
                write_checkpoint(draft, policy, trainer_state)
                text = json.dumps(dict(evaluation))
                (draft / EVALUATION_FILE).write_text(f"{text}\n", encoding="utf-8")
            if self._logger is not None:
                best = find_checkpoint(self.folder, "best")
                self._logger.checkpoint(trainer_state["steps_done"], best, ("best",))
        except (OSError, SafetensorError, RuntimeError) as error:
            why = getattr(error, "strerror", None) or one_line(error)
            tell(f"xlstm_rl: run folder {self.folder}: best/ cannot be written: {why}")

    def close(self) -> None:
        """Close the logger."""
        self._logger = None
        if self._close_logger is not None:
            self._close_logger()  # once: afterwards it does nothing

    def _create(self, path: str | Path | None) -> Path:
        config = copy.deepcopy(self.config)
        folder = create_run_folder(
            path,
            config,
            env=config["env"]["id"],
            memory=config["memory"]["kind"],
            seed=config["seed"],
        )
        self._made.add(folder.resolve())
        return folder
