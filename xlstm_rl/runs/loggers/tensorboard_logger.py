"""Metrics in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlstm_rl.runs.loggers.config import LoggerConfig


class TensorBoardSink:
    """TensorBoard event files under `tensorboard/` of the run folder."""

    def __init__(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._make, self._folder = SummaryWriter, str(folder / "tensorboard")
        self._opened: Any = None
        self._purge_step: int | None = None

    @property
    def _writer(self) -> Any:
        if self._opened is None:
            self._opened = self._make(log_dir=self._folder, purge_step=self._purge_step)
        return self._opened

    def resume(self, step: int, logged: int) -> None:
        """Let TensorBoard leave out what stands in earlier files of later steps."""
        self._purge_step = step + 1

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a scalar per metric, and flush them, so that a killed run keeps them."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write the last events."""
        if self._opened is not None:
            self._opened.close()
