"""Metrics in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xlstm_rl.runs.loggers.config import LoggerConfig
from xlstm_rl.runs.loggers.tensorboard_file import EventFile

_BINS = 64


class TensorBoardSink:
    """TensorBoard event files under `tensorboard/` of the run folder."""

    is_slow = True
    recovers = True
    """What a full disk refused is left out, and what follows is written when there is room."""

    def __init__(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        from tensorboard.compat.proto import summary_pb2  # type: ignore[import-untyped]

        self._proto: Any = summary_pb2
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
        value = self._proto.Summary.Value
        values = [value(tag=key, simple_value=one) for key, one in metrics.items()]
        self._file.add(step, self._proto.Summary(value=values))

    def write_histograms(self, step: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Add a histogram per name."""
        value = self._proto.Summary.Value
        shown = [value(tag=key, histo=self._histogram(array)) for key, array in values.items()]
        self._file.add(step, self._proto.Summary(value=shown))

    def _histogram(self, values: NDArray[Any]) -> Any:
        counts, limits = np.histogram(values, _BINS)
        return self._proto.HistogramProto(
            min=values.min(),
            max=values.max(),
            num=values.size,
            sum=values.sum(),
            sum_squares=np.square(values).sum(),
            bucket_limit=limits,  # the upper ones: the first is that of an empty bucket
            bucket=[0, *counts],
        )

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
