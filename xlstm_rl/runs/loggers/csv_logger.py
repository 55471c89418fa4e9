"""Metrics in a table, `metrics.csv`."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlstm_rl.files import replacing
from xlstm_rl.runs.folder import METRICS_FILE
from xlstm_rl.runs.loggers.config import LoggerConfig
from xlstm_rl.runs.loggers.lines import append_line
from xlstm_rl.runs.loggers.tables import drop_rows_after

FIRST_COLUMNS = ("step", "episode/return", "episode/length", "time/sps")
"""The columns that every metrics.csv begins with."""


class CsvSink:
    """A row per step. A metric that is missing leaves its cell empty.

    A metric that appears later gets a column at the end, and the file is written anew once.
    Opened on an existing file, it goes on below its last row.
    """

    def __init__(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        self._path = folder / METRICS_FILE
        self._waiting: list[tuple[int, dict[str, float]]] = []
        self._columns: dict[str, str] = {}
        """By name, in their order: what stands where a row has no value."""
        self._begin()

    recovers = True
    """Rows that a full disk refused are kept, and written when there is room again."""

    def resume(self, step: int, logged: int) -> None:
        """Drop the rows of later steps."""
        drop_rows_after(self._path, step)
        self._file.close()
        self._begin()

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a row and flush it, so that a killed run keeps it."""
        self._waiting.append((step, dict(metrics)))
        while self._waiting:
            row = self._waiting.pop(0)
            try:
                self._append(*row)
            except OSError:
                self._waiting.insert(0, row)
                raise

    def _append(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._file.closed or not os.fstat(self._file.fileno()).st_nlink:  # somebody removed it
            self._file.close()
            self._begin()
        new = metrics.keys() - self._columns.keys()
        if new:
            self._add_columns([key for key in metrics if key in new])
        row: dict[str, object] = {**self._columns, **metrics, "step": step}
        append_line(self._file, f"{','.join(map(str, row.values()))}\n".encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _begin(self) -> None:
        """Go on below what stands in the file, or begin one."""
        if not self._path.exists() or not self._path.stat().st_size:
            with replacing(self._path) as draft:
                draft.write_text(f"{','.join(FIRST_COLUMNS)}\n", encoding="utf-8")
        with self._path.open(newline="", encoding="utf-8") as file:
            self._columns = dict.fromkeys(next(csv.reader(file)), "")
        self._file = self._path.open("ab", buffering=0)

    def _add_columns(self, new: list[str]) -> None:
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        with (
            replacing(self._path) as draft,
            draft.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*self._columns, *new])
            writer.writerows(row + [""] * len(new) for row in rows)
        self._file.close()
        self._begin()
