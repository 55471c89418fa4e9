"""Memory that calls of the library work in: kept and lent again, since new pages cost time.

A fresh page is cleared by the system when it is first touched, which costs as much as computing what
is written there. So buffers stay here between calls. What a forward keeps for its backward is lent as
a tensor: autograd frees it with the graph, or after the backward unless the graph is retained, and
only then it comes back. A buffer is never shared with a living graph.
"""

import ctypes
import threading
import weakref
from collections import deque

import torch
from torch import Tensor

_ALIGNMENT = 64


class _Pool:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._returned: deque[Tensor] = deque()  # appended to by finalizers, which may not wait
        self._idle: list[Tensor] = []

    def take(self, size: int) -> Tensor:
        """Bytes to give back by `give_back`, of at least that size and not much more."""
        with self._lock:
            while self._returned:
                self._idle.append(self._returned.popleft())
            fitting = [b for b in self._idle if size <= b.numel() <= 2 * size + (1 << 16)]
            if fitting:
                best = min(fitting, key=Tensor.numel)
                self._idle = [b for b in self._idle if b is not best]
                return best
            # sizes have changed: what lies here is of those before
            while sum(b.numel() for b in self._idle) > 4 * size:
                self._idle.pop(0)
        return torch.empty(size, dtype=torch.uint8)

    def give_back(self, buffer: Tensor) -> None:
        self._returned.append(buffer)


_pool = _Pool()


class scratch:  # noqa: N801 -- reads as a function
    """Lend memory for the time of a call: ``with scratch(size) as address``."""

    def __init__(self, size: int) -> None:
        self._buffer = _pool.take(size + _ALIGNMENT)

    def __enter__(self) -> int:
        return _aligned(self._buffer)

    def __exit__(self, *_: object) -> None:
        _pool.give_back(self._buffer)


def lend_tensor(size: int) -> Tensor:
    """Lend bytes as a tensor; they come back when nothing holds its storage any more."""
    buffer = _pool.take(size + _ALIGNMENT)
    lease = (ctypes.c_char * max(size, 1)).from_address(_aligned(buffer))
    weakref.finalize(lease, _pool.give_back, buffer).atexit = False
    return torch.frombuffer(lease, dtype=torch.uint8)


def lend_floats(size: int) -> Tensor:
    """Lend that many floats as :func:`lend_tensor` does."""
    return lend_tensor(4 * max(size, 1)).view(torch.float32)


def _aligned(buffer: Tensor) -> int:
    return -(-buffer.data_ptr() // _ALIGNMENT) * _ALIGNMENT
