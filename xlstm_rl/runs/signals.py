"""Signals that ask a run to end: it is saved first, and saving is not cut short."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any
from weakref import WeakSet

STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Stopped(KeyboardInterrupt):
    """A signal has asked the process to end; `number` says which."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


_Handler = Callable[[int, FrameType | None], None]
_OURS: "WeakSet[_Handler]" = WeakSet()


def is_usual_handler(handler: Any) -> bool:
    """Whether a handler is the system's or Python's own, or that of `stopped_once`."""
    return handler in (signal.SIG_DFL, signal.default_int_handler) or handler in list(_OURS)


def _is_ours(handler: _Handler) -> _Handler:
    _OURS.add(handler)
    return handler


_IGNORED_FOR = 10.0
"""Seconds after a signal in which others are taken for the same wish."""

_raised: list[int] = []
"""The signals that raised `Stopped` in blocks of `stopped_once` which are not left yet."""


@contextmanager
def stopped_once() -> Iterator[None]:
    """Raise `Stopped` at the first SIGINT, SIGTERM or SIGHUP, and ignore others for ten seconds.

    So what the block does about the first, such as saving, is done whole. A signal that the process
    ignores (SIGHUP under nohup), or has a handler of its own for, is left alone. Outside the main
    thread, where Python does not allow handlers, nothing changes.

    Raises:
        Stopped: A signal came, or had come in a block around this one and was lost there: where it
            meets a hook of Python's, such as one that is called when a process is made, Python
            drops the exception.
    """
    process, last = os.getpid(), -math.inf

    @_is_ours
    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != process:  # an environment's process, which has this handler by birth
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        elif time.monotonic() - last > _IGNORED_FOR:
            last = time.monotonic()
            _raised.append(number)
            raise Stopped(number)

    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            if _raised:
                raise Stopped(_raised[-1])
            stack.callback(_raised.clear)
            for number in STOP_SIGNALS:
                before = signal.getsignal(number)
                if is_usual_handler(before):
                    stack.callback(signal.signal, number, before)
                    signal.signal(number, stop)
        yield


@contextmanager
def signals_held() -> Iterator[None]:
    """Let SIGINT, SIGTERM and SIGHUP wait for the end of the block, and then take effect.

    Outside the main thread, which signals never interrupt, nothing changes.
    """
    arrived: list[int] = []

    def deliver() -> None:
        for number in dict.fromkeys(arrived):
            signal.raise_signal(number)

    with ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            stack.callback(deliver)
            for number in STOP_SIGNALS:
                before = signal.getsignal(number)
                if before is not None:  # None: not Python's, and so cannot be put back
                    stack.callback(signal.signal, number, before)
                    signal.signal(number, lambda number, _: arrived.append(number))
        yield
