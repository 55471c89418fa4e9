"""Memory that calls of the library work in: kept and lent again, since new pages cost time.

The system clears a fresh page when it is first touched, which costs as much as computing what is
written there. So buffers stay here between calls. What a forward keeps for its backward is lent as
a tensor: autograd frees it with the graph, or after the backward unless the graph is retained, and
only then it comes back. A buffer is never shared with a living graph.
"""

import ctypes
import mmap
import os
import threading
import weakref
from collections import deque

import torch
from torch import Tensor

ALIGNMENT = 64
_HUGE_PAGE = 2 << 20


class _Pool:
    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start anew, in a forked child too: another thread may have held the lock meanwhile."""
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
        return allocate(size)

    def give_back(self, buffer: Tensor) -> None:
        self._returned.append(buffer)


_pool = _Pool()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.clear)
_own = threading.local()


class scratch:  # noqa: N801 -- reads as a function
    """Lend memory for the time of a call: ``with scratch(size) as address``."""

    def __init__(self, size: int) -> None:
        self._buffer = _pool.take(size + ALIGNMENT)

    def __enter__(self) -> int:
        return aligned(self._buffer)

    def __exit__(self, *_: object) -> None:
        _pool.give_back(self._buffer)


def own_scratch(size: int) -> int:
    """Address of memory that belongs to this thread until its next call: for a step."""
    buffer = getattr(_own, "buffer", None)
    if buffer is None or buffer.numel() < size + ALIGNMENT:
        buffer = _own.buffer = allocate(size + ALIGNMENT)
        _own.address = aligned(buffer)
    address: int = _own.address
    return address


def lend_tensor(size: int) -> Tensor:
    """Lend bytes as a tensor; they come back when nothing holds its storage any more."""
    buffer = _pool.take(size + ALIGNMENT)
    lease = (ctypes.c_char * max(size, 1)).from_address(aligned(buffer))
    weakref.finalize(lease, _pool.give_back, buffer).atexit = False
    return torch.frombuffer(lease, dtype=torch.uint8)


def lend_floats(size: int) -> Tensor:
    """Lend that many floats as `lend_tensor` does."""
    return lend_tensor(4 * max(size, 1)).view(torch.float32)


def allocate(size: int) -> Tensor:
    """New bytes, in huge pages where the system has them: 7 % of a block's time (measured)."""
    if size < _HUGE_PAGE or not hasattr(mmap, "MADV_HUGEPAGE"):
        return torch.empty(size, dtype=torch.uint8, device="cpu")
    # private: a forked child gets a copy, as of all other memory
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    pages = mmap.mmap(-1, -(-size // _HUGE_PAGE) * _HUGE_PAGE, private)
    pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=torch.uint8)


def aligned(buffer: Tensor) -> int:
    """Return the first address of a buffer at the border of a cache line."""
    return -(-buffer.data_ptr() // ALIGNMENT) * ALIGNMENT
