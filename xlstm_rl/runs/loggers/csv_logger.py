"""Metrics in a table, `metrics.csv`."""

import csv
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from xlstm_rl.closing import closed_on_error
from xlstm_rl.files import replacing
from xlstm_rl.runs.folder import METRICS_FILE
from xlstm_rl.runs.loggers.config import LoggerConfig
from xlstm_rl.runs.loggers.tables import drop_rows_after

FIRST_COLUMNS = ("step", "episode/return", "episode/length", "time/sps")
"""The columns that every metrics.csv begins with."""


class CsvSink:
    """A row per step. A metric that is missing leaves its cell empty.

    A metric that appears later gets a column at the end, and the file is written anew once.
    Opened on an existing file, it goes on below its last row.
    """

    def __init__(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        self._path = path = folder / METRICS_FILE
        self._columns = list(FIRST_COLUMNS)
        self._waiting: list[tuple[int, dict[str, float]]] = []
        if path.exists() and path.stat().st_size:
            with path.open(newline="", encoding="utf-8") as file:
                self._columns = next(csv.reader(file))
            self._open("a")
        else:
            self._open("w")
            with closed_on_error(self.close):
                self._writer.writerow(self._columns)
                self._file.flush()

    recovers = True
    """Rows that a full disk refused are kept, and written when there is room again."""

    def resume(self, step: int, logged: int) -> None:
        """Drop the rows of later steps."""
        self._file.close()
        drop_rows_after(self._path, step)
        self._open("a")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a row and flush it, so that a killed run keeps it."""
        self._waiting.append((step, dict(metrics)))
        while self._waiting:
            self._append(*self._waiting[0])
            del self._waiting[0]

    def _append(self, step: int, metrics: Mapping[str, float]) -> None:
        new = [key for key in metrics if key not in self._columns]
        if new:
            self._add_columns(new)
        row = {**metrics, "step": step}
        before = self._path.stat().st_size
        try:
            self._writer.writerow([row.get(column, "") for column in self._columns])
            self._file.flush()
        except OSError:
            with suppress(OSError):  # what is left in the buffer fails again
                self._file.close()
            os.truncate(self._path, before)  # a part of a row would spoil the next one
            self._open("a")
            raise

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _open(self, mode: str) -> None:
        self._file = self._path.open(mode, newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def _add_columns(self, new: list[str]) -> None:
        self._file.close()
        try:
            with self._path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.reader(file))[1:]
            with (
                replacing(self._path) as draft,
                draft.open("w", newline="", encoding="utf-8") as file,
            ):
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(self._columns + new)
                writer.writerows(row + [""] * len(new) for row in rows)
            self._columns += new
        finally:
            self._open("a")
