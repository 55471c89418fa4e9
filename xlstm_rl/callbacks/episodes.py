"""A row for every episode of a training, in `episodes.csv` of the run folder."""

import csv
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import repeat
from pathlib import Path
from typing import IO, Any

from xlstm_rl.callbacks.base import Callback
from xlstm_rl.collection.collector import Rollout
from xlstm_rl.collection.infos import SUCCESS
from xlstm_rl.config.errors import one_line
from xlstm_rl.files import replacing, step_in
from xlstm_rl.terminal import tell

EPISODES_FILE = "episodes.csv"
COLUMNS = ("step", "time", "environment", "return", "length", "success")
"""Environment steps done at the end of the episode, seconds of training, number of the environment,
undiscounted return, steps, and `info["is_success"]`; then the keywords."""


class EpisodeLog(Callback):
    """Writes `episodes.csv`. Opened on one of before, it goes on behind the steps that are done.

    Args:
        keywords: keys of the info of an episode's last step that get a column, `env.info_keywords`.
    """

    def __init__(self, keywords: Sequence[str] = ()) -> None:
        self._keywords = tuple(keywords)
        self._file: IO[str] | None = None

    def on_training_start(self) -> None:
        """Open the file, if there is a run folder."""
        folder = self.agent.run_dir
        if folder is None:
            return
        try:
            self._open(folder / EPISODES_FILE)
        except (OSError, ValueError, IndexError, csv.Error) as error:  # damaged, among others
            self._give_up(error)

    def _open(self, path: Path) -> None:
        columns, rows = _rows_until(path, self.agent.steps_done)
        before = float(rows[-1][1]) if rows else 0.0
        columns = list(dict.fromkeys((*columns, *COLUMNS, *self._keywords)))
        with replacing(path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(row + [""] * (len(columns) - len(row)) for row in rows)
        self._columns = columns
        self._began = time.monotonic() - before
        self._file = path.open("a", newline="", encoding="utf-8")

    def on_rollout_end(self, rollout: Rollout) -> None:
        """Write the episodes that ended, and flush them, so that a killed run keeps them."""
        if self._file is None or not rollout.episode_ends:
            return
        try:
            self._write(self._file, rollout)
        except OSError as error:
            self._give_up(error)

    def _write(self, file: IO[str], rollout: Rollout) -> None:
        num_envs = rollout.data.batch_size[0] * rollout.ranks
        before, ends = self.agent.steps_done, rollout.episode_ends
        said: dict[str, Iterable[Any]] = {
            "step": [before + (t + 1) * num_envs for t, _ in ends],
            "time": repeat(f"{time.monotonic() - self._began:.3f}"),
            "environment": [environment for _, environment in ends],
            "return": rollout.episode_returns,
            "length": rollout.episode_lengths,
        }
        for key, values in rollout.episode_infos.items():
            column = "success" if key == SUCCESS else key
            said[column] = [value if math.isfinite(value) else "" for value in values]
        columns = [said.get(column, repeat("")) for column in self._columns]
        csv.writer(file, lineterminator="\n").writerows(zip(*columns, strict=False))
        file.flush()

    def _give_up(self, error: Exception) -> None:
        """Say that no more episodes are written, to a full disk, say; training goes on."""
        why = getattr(error, "strerror", None) or one_line(error)
        tell(f"xlstm_rl: {EPISODES_FILE} cannot be written, and ends here: {why}")
        self.close()

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):  # what could not be written cannot be flushed either
                file.close()


def _rows_until(path: Path, step: int) -> tuple[list[str], list[list[str]]]:
    """Return the columns of a file, if there is one, and its rows of up to so many steps.

    What a killed run left of its last row is dropped.
    """
    if not path.is_file():
        return [], []
    with path.open(newline="", encoding="utf-8") as file:
        columns, *rows = list(csv.reader(file)) or [[]]
    whole = [row for row in rows if len(row) == len(columns)]
    steps = [step_in(row[0]) for row in whole]
    counted = zip(whole, steps, strict=True)
    return columns, [row for row, done in counted if done is not None and done <= step]
