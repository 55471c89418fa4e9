"""A bar while an agent trains, in a terminal and in a notebook."""

import io
import sys
from importlib.util import find_spec
from typing import TextIO

from xlstm_rl.callbacks.base import Callback
from xlstm_rl.runs.progress import TrainingProgress


class ProgressBar(Callback):
    """Shows return, episode length, speed and time left: `learn(progress=True)`.

    A bar in a terminal, and in a notebook that has ipywidgets; elsewhere a line now and then.

    Args:
        last_step: environment steps at which this call of `learn` ends.
    """

    def __init__(self, last_step: int) -> None:
        self._last_step = last_step
        self._progress: TrainingProgress | None = None
        self._is_done = False

    def on_training_start(self) -> None:
        """Show it, as far as training has come."""
        done = self.agent.steps_done
        self._progress = TrainingProgress(self._last_step, stream=_output(), steps_done=done)
        self._progress.__enter__()

    def on_update(self, step: int, metrics: dict[str, float]) -> bool:
        """Move it on; training stops where nobody reads it any more."""
        return self._progress is None or self._progress.update(step, metrics)

    def on_training_end(self) -> None:
        """Fill it."""
        self._is_done = True

    def close(self) -> None:
        """Leave it as it is."""
        progress, self._progress = self._progress, None
        if progress is not None:
            progress.__exit__(None if self._is_done else KeyboardInterrupt, None, None)


class _Notebook(io.TextIOBase):
    """The output of a notebook's cell, which shows a bar as a terminal does."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write text that is not part of the bar."""
        return self._stream.write(text)

    def flush(self) -> None:
        """Show what was written."""
        self._stream.flush()


def _output() -> TextIO:
    """Return where the bar goes; rich itself finds out how a notebook draws it."""
    from rich.console import Console

    if Console(file=sys.stderr).is_jupyter and find_spec("ipywidgets") is not None:
        return _Notebook(sys.stderr)  # type: ignore[return-value]
    return sys.stderr
