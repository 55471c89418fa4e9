"""A signal while an agent learns: the update is ended where that is soon, and the run is saved."""

import os
import signal
import threading
import time
from contextlib import ExitStack
from types import FrameType, TracebackType

from typing_extensions import Self

from xlstm_rl.runs.signals import STOP_SIGNALS, Stopped, is_usual_handler

PATIENCE = 5.0
"""Seconds that a signal waits for the end of an update: well below the 30 of Slurm, the 10 of
Docker. What takes longer is cut off, and the environments begin new episodes when it goes on."""


class Interruption:
    """Handles SIGINT, SIGTERM and SIGHUP inside a `with` statement.

    The first one waits for the end of the update if that is near, judging by the update before:
    `number` is then set, and whoever learns stops, saves and calls `raise_if_asked`. Otherwise,
    and at a second signal or after ten seconds, `Stopped` is raised at once; those that follow are
    ignored.

    A signal that the process ignores (SIGHUP under nohup), or has a handler of its own for, is left
    alone. Outside the main thread, where Python does not allow handlers, nothing changes.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came, if any."""
        self._began = time.monotonic()
        self._lasts = float("inf")
        self._is_raised = False
        self._process = os.getpid()
        self._handlers = ExitStack()
        self._timer: threading.Timer | None = None

    def begin_update(self) -> None:
        """Tell that a rollout and its update begin."""
        self._began = time.monotonic()

    def end_update(self) -> None:
        """Tell that they are over."""
        self._lasts = time.monotonic() - self._began

    def raise_if_asked(self) -> None:
        """Raise `Stopped` for the signal that came."""
        if self.number is not None and not self._is_raised:
            self._is_raised = True
            raise Stopped(self.number)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                before = signal.getsignal(number)
                if is_usual_handler(before):
                    self._handlers.callback(signal.signal, number, before)
                    signal.signal(number, self._take)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._handlers.close()

    def _take(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # an environment's process, which has it by birth
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif self._is_raised:
            return
        elif self.number is None:
            self.number = number
            left = self._lasts - (time.monotonic() - self._began)
            if left > PATIENCE:
                self.raise_if_asked()
            # An environment may hang: then this is the second signal.
            self._timer = threading.Timer(2 * PATIENCE, os.kill, (self._process, number))
            self._timer.daemon = True
            self._timer.start()
        else:
            self.raise_if_asked()
