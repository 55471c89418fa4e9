"""Metrics as JSON lines, `metrics.jsonl`."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xlstm_rl.files import replacing
from xlstm_rl.runs.loggers.config import LoggerConfig
from xlstm_rl.runs.loggers.lines import append_line

FILE = "metrics.jsonl"


class JsonLinesSink:
    """An object per step: `{"step": 1024, "episode/return": 57.2, ...}`.

    What is not finite is null, since JSON has no NaN. Opened on an existing file, it goes on below
    its last line.
    """

    def __init__(self, config: LoggerConfig, folder: Path, run_config: Mapping[str, Any]) -> None:
        self._file = (folder / FILE).open("ab", buffering=0)

    recovers = True
    """What a full disk refused is left out, and what follows is written when there is room."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line, which a killed run keeps."""
        finite = {key: x if math.isfinite(x) else None for key, x in metrics.items()}
        append_line(self._file, f"{json.dumps({'step': step, **finite})}\n".encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @staticmethod
    def forget_after(folder: Path, step: int) -> None:
        """Drop the lines of later steps, and one that a killed run left incomplete."""
        path = folder / FILE
        if not path.exists():
            return
        kept = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                counts = json.loads(line)["step"] <= step
            except (ValueError, KeyError, TypeError):
                continue
            if counts:
                kept.append(f"{line}\n")
        with replacing(path) as draft:
            draft.write_text("".join(kept), encoding="utf-8")
