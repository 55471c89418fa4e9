"""Metrics in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlstm_rl.runs.loggers.config import LoggerConfig


class TensorBoardSink:
    """TensorBoard event files under `tensorboard/` of the run folder."""

    def __init__(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=str(folder / "tensorboard"))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a scalar per metric, and flush them, so that a killed run keeps them."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write the last events."""
        self._writer.close()
