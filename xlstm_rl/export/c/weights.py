"""The weights file: where each tensor lies, and the bytes."""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

HEADER = 64
_MAGIC, _VERSION, _ORDER = b"xlstm_rl", 1, 0x01020304
_LARGEST = 127


class Weights:
    """Tensors one after the other, each at a multiple of 16 bytes.

    Args:
        int8: keep matrices as bytes, with a scale for each row.
    """

    def __init__(self, int8: bool) -> None:
        self.int8 = int8
        self._parts: list[bytes] = []
        self.size = HEADER

    def floats(self, x: Tensor) -> int:
        """Take over numbers as float32 and return the byte at which they begin."""
        return self._add(_array(x).astype("<f4"))

    def doubles(self, x: Tensor) -> int:
        """Take over numbers as float64 and return the byte at which they begin."""
        return self._add(_array(x).astype("<f8"))

    def matrix(self, x: Tensor) -> tuple[int, int | None]:
        """Take over a matrix whose rows are outputs; with `int8` also the rows' scales."""
        if not self.int8:
            return self.floats(x), None
        rows = _array(x).astype(np.float32)
        scales = row_scales(rows)
        numbers = np.rint(rows / scales[:, None]).astype(np.int8)
        return self._add(numbers), self._add(scales.astype("<f4"))

    def _add(self, values: NDArray[Any]) -> int:
        at = self.size
        data = np.ascontiguousarray(values).tobytes()
        self._parts.append(data + bytes(-len(data) % 16))
        self.size += len(self._parts[-1])
        return at

    def to_bytes(self, layout: int) -> bytes:
        """Return the file, for the program of a layout."""
        body = b"".join(self._parts)
        head = struct.pack(
            "<8sIIQQQ", _MAGIC, _VERSION, _ORDER, self.size, layout, zlib.crc32(body)
        )
        return head + bytes(HEADER - len(head)) + body


def row_scales(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the scale of each row `[M]`, with which its largest number becomes 127."""
    largest = np.abs(rows).max(1, initial=0.0)
    return np.where(largest > 0, largest / np.float32(_LARGEST), 1.0).astype(np.float32)


def _array(x: Tensor) -> NDArray[Any]:
    return x.detach().cpu().numpy()
