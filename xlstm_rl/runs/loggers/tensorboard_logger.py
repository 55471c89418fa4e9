"""Metrics in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xlstm_rl.runs.loggers.config import LoggerConfig

_FOLDER = "tensorboard"


class TensorBoardSink:
    """TensorBoard event files under `tensorboard/` of the run folder."""

    def __init__(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(log_dir=str(folder / _FOLDER))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a scalar per metric, and flush them, so that a killed run keeps them."""
        for key, value in metrics.items():
            self._writer.add_scalar(key, value, step)
        self._writer.flush()

    def write_histograms(self, step: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Add a histogram per name."""
        for key, array in values.items():
            self._writer.add_histogram(key, array, step)

    def close(self) -> None:
        """Write the last events."""
        self._writer.close()

    @staticmethod
    def forget_after(folder: Path, step: int) -> None:
        """Write down that what was logged of later steps does not count; TensorBoard drops it."""
        if not (folder / _FOLDER).is_dir():
            return
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(log_dir=str(folder / _FOLDER), purge_step=step + 1)
        writer.close()
