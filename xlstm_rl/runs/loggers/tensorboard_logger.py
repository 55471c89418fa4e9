"""Metrics in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xlstm_rl.runs.loggers.config import LoggerConfig
from xlstm_rl.runs.loggers.tensorboard_file import EventFile
from xlstm_rl.runs.loggers.tensorboard_messages import histograms, scalars


class TensorBoardSink:
    """TensorBoard event files under `tensorboard/` of the run folder."""

    is_slow = True
    recovers = True
    """What a full disk refused is left out, and what follows is written when there is room."""

    def __init__(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        self._folder = folder / "tensorboard"
        self._opened: EventFile | None = None
        self._purge_step: int | None = None

    @property
    def _file(self) -> EventFile:
        if self._opened is None:
            self._opened = EventFile(self._folder, self._purge_step)
        return self._opened

    def resume(self, step: int, logged: int) -> None:
        """Let TensorBoard leave out what stands in earlier files of later steps."""
        self._purge_step = step + 1

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a scalar per metric."""
        self._file.add(step, scalars(metrics))

    def write_histograms(self, step: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Add a histogram per name."""
        self._file.add(step, histograms(values))

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
