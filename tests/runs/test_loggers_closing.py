"""Loggers that cannot start, or cannot be closed, keep no other open."""

import csv
from pathlib import Path
from typing import Any

import pytest

from xlstm_rl.runs.loggers import LoggerConfig, make_logger
from xlstm_rl.runs.loggers.base import Logger
from xlstm_rl.runs.loggers.csv_logger import CsvSink
from xlstm_rl.runs.loggers.tensorboard_logger import TensorBoardSink
from xlstm_rl.runs.loggers.wandb_logger import WandbSink


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The files that paths opened."""
    files: list[Any] = []
    own = Path.open

    def spy(self: Path, *args: Any, **kwargs: Any) -> Any:
        files.append(own(self, *args, **kwargs))
        return files[-1]

    monkeypatch.setattr(Path, "open", spy)
    return files


def _fail(*_: object, **__: object) -> None:
    raise OSError("no server")


@pytest.mark.parametrize(("kind", "sink"), [("wandb", WandbSink), ("tensorboard", TensorBoardSink)])
def test_a_logger_that_fails_to_start_leaves_no_other_open(
    kind: str, sink: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Any]
) -> None:
    monkeypatch.setattr(sink, "__init__", _fail)
    with pytest.raises(OSError, match="no server"):
        make_logger(LoggerConfig(kind), tmp_path, {})
    assert opened and all(file.closed for file in opened)


def test_a_table_whose_first_row_cannot_be_read_back_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[Any]
) -> None:
    monkeypatch.setattr(csv, "reader", _fail)  # of the first row, once it is written
    with pytest.raises(OSError, match="no server"):
        make_logger(LoggerConfig("csv"), tmp_path, {})
    assert opened and all(file.closed for file in opened)


def test_a_logger_that_cannot_be_closed_keeps_no_other_open(tmp_path: Path) -> None:
    class Stubborn:
        def write(self, step: int, metrics: Any) -> None: ...

        close = staticmethod(_fail)

    table = CsvSink(LoggerConfig("csv"), tmp_path, {})
    logger = Logger([Stubborn(), table])
    with pytest.raises(OSError, match="no server"):
        logger.close()
    assert table._file.closed
