"""TensorBoard's own reader reads what is written here."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from xlstm_rl.runs.loggers import LoggerConfig, make_logger
from xlstm_rl.runs.loggers.tensorboard_file import _checksum
from xlstm_rl.runs.loggers.tensorboard_logger import TensorBoardSink


def read(folder: Path) -> Any:
    return EventAccumulator(str(folder / "tensorboard")).Reload()


@pytest.mark.parametrize("size", [0, 1, 8, 255, 1000])
def test_the_checksum_is_tensorboards(size: int) -> None:
    data = np.random.default_rng(size).bytes(size)
    assert int.from_bytes(_checksum(data), "little") == masked_crc32c(data)


def test_the_checksum_of_the_standard() -> None:
    """CRC-32C of 32 zero bytes is 8a9136aa (RFC 3720, B.4)."""
    crc = 0x8A9136AA
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    assert int.from_bytes(_checksum(bytes(32)), "little") == masked


def test_histograms_hold_every_value(tmp_path: Path) -> None:
    values = np.array([0.0, 0.0, 1.0, 2.0, 10.0])
    with make_logger(LoggerConfig("tensorboard"), tmp_path, {}) as logger:
        logger.histograms(5, {"actions": values, "same": np.full(3, 7.0)})
    events = read(tmp_path)
    (event,) = events.Histograms("actions")
    found = event.histogram_value
    assert event.step == 5
    assert (found.min, found.max, found.num, found.sum) == (0, 10, 5, 13)
    assert found.sum_squares == 105
    limits, counts = np.array(found.bucket_limit), np.array(found.bucket)
    assert limits[0] == 0 and counts[0] == 0 and limits[-1] == 10 and counts.sum() == 5
    for limit, below in ((0.5, 2), (1.5, 3), (5.0, 4)):
        assert counts[limits <= limit + 0.16].sum() == below
    (event,) = events.Histograms("same")
    assert sum(event.histogram_value.bucket) == 3


def test_a_full_disk_costs_the_rows_of_that_time(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with make_logger(LoggerConfig("tensorboard"), tmp_path, {}) as logger:
        logger.log(1, {"x": 1.0})
        (sink,) = (one for one in logger._sinks if isinstance(one, TensorBoardSink))
        assert sink._opened is not None
        whole = sink._opened._file

        class Full:
            """Takes a part of a record, then refuses."""

            def write(self, record: bytes) -> int:
                return whole.write(record[:20])

            def flush(self) -> None:
                whole.flush()
                raise OSError(28, "No space left on device")

            def close(self) -> None:
                whole.close()

        sink._opened._file = Full()  # type: ignore[assignment]
        logger.log(2, {"x": 2.0})
        logger.log(3, {"x": 3.0})
    assert [one.step for one in read(tmp_path).Scalars("x")] == [1, 3]
    assert capsys.readouterr().err.count("is not logged: ") == 1


def test_a_killed_run_keeps_its_rows(tmp_path: Path) -> None:
    code = (
        "import os, sys; from xlstm_rl.runs.loggers import LoggerConfig, make_logger\n"
        "logger = make_logger(LoggerConfig('tensorboard'), sys.argv[1], {})\n"
        "logger.log(1, {'x': 1.0}); logger.log(2, {'x': 2.0}); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, env=dict(os.environ))
    assert [one.step for one in read(tmp_path).Scalars("x")] == [1, 2]


def test_the_file_begins_as_tensorboard_expects(tmp_path: Path) -> None:
    with make_logger(LoggerConfig("tensorboard"), tmp_path, {}) as logger:
        logger.log(1, {"x": 1.0})
    (path,) = (tmp_path / "tensorboard").iterdir()
    first, second = EventFileLoader(str(path)).Load()
    assert first.file_version == "brain.Event:2" and second.step == 1
    assert ".tfevents." in path.name
