"""Metrics in TensorBoard."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from xlstm_rl.runs.loggers.config import LoggerConfig

_BINS = 64


class TensorBoardSink:
    """TensorBoard event files under `tensorboard/` of the run folder."""

    is_slow = True

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
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[import-untyped]

        # in one event: one by one takes several times as long
        values = [Summary.Value(tag=key, simple_value=one) for key, one in metrics.items()]
        self._writer.file_writer.add_summary(Summary(value=values), step)
        self._writer.flush()

    def write_histograms(self, step: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Add a histogram per name."""
        for key, array in values.items():
            # its own choice of bins, over a thousand, takes five times as long
            self._writer.add_histogram(key, array, step, bins=_BINS)

    def close(self) -> None:
        """Write the last events."""
        if self._opened is not None:
            self._opened.close()
