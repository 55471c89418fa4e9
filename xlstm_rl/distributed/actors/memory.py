"""Memory that a learner and its actors share: weights one way, rollouts the other."""

import mmap
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_ALIGNMENT = 64
_IN_MEMORY = Path("/dev/shm")


@dataclass(frozen=True)
class Layout:
    """Where tensors stand in a block of memory: shape and dtype by name, in this order."""

    parts: dict[str, tuple[tuple[int, ...], torch.dtype]]

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Layout":
        """Return that of some tensors."""
        return cls({name: (tuple(x.shape), x.dtype) for name, x in tensors.items()})

    @property
    def size(self) -> int:
        """Bytes of a block."""
        return sum(_room(shape, dtype) for shape, dtype in self.parts.values())

    def views(self, memory: Any, at: int = 0) -> dict[str, Tensor]:
        """Return the tensors of a block, which are the memory itself.

        Args:
            memory: a buffer that can be written to.
            at: where in it the block begins, in bytes.
        """
        found = {}
        for name, (shape, dtype) in self.parts.items():
            count = prod(shape)
            if count:
                found[name] = torch.frombuffer(memory, dtype=dtype, count=count, offset=at)
            else:
                found[name] = torch.empty(0, dtype=dtype)
            found[name] = found[name].view(shape)
            at += _room(shape, dtype)
        return found


class Blocks:
    """Equal blocks of shared memory, each with tensors of one layout.

    The memory is a file without a name: it is gone once no process has it open, however they end.

    Args:
        layout: of a block.
        count: how many blocks.
        file: descriptor of the memory, as another process made it; None: new memory.
    """

    def __init__(self, layout: Layout, count: int, file: int | None = None) -> None:
        self.layout = layout
        size = max(layout.size, 1) * count
        if file is None:
            folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
            with tempfile.TemporaryFile(dir=folder) as temporary:
                file = os.dup(temporary.fileno())
            os.ftruncate(file, size)
        self.file = file
        self._memory = mmap.mmap(file, size)
        self._blocks = [layout.views(self._memory, i * layout.size) for i in range(count)]

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return the tensors of a block, counted round and round; they are the memory itself."""
        return self._blocks[index % len(self._blocks)]

    def write(self, index: int, tensors: Mapping[str, Tensor]) -> None:
        """Copy tensors into a block."""
        for name, place in self[index].items():
            place.copy_(tensors[name])

    def close(self) -> None:
        """Let go of the file; the memory stays as long as its tensors."""
        os.close(self.file)


def _room(shape: tuple[int, ...], dtype: torch.dtype) -> int:
    size = prod(shape) * dtype.itemsize
    return -(-size // _ALIGNMENT) * _ALIGNMENT
