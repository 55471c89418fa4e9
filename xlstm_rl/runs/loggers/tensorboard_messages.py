"""TensorBoard's messages, encoded here as its `event.proto` and `summary.proto` say.

Importing its own classes takes as long as a small policy takes for an update.
"""

import math
import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

_BINS = 64
_VARINT, _DOUBLE, _BYTES, _FLOAT = 0, 1, 2, 5  # wire types of protocol buffers


def version_event(wall_time: float) -> bytes:
    """Return the event that a file begins with."""
    return _wall_time(wall_time) + _bytes(3, b"brain.Event:2")


def start_event(wall_time: float, step: int) -> bytes:
    """Return the event that leaves out what stands in earlier files from a step on."""
    return _wall_time(wall_time) + _number(2, step) + _bytes(7, _number(1, 1))


def summary_event(wall_time: float, step: int, values: Iterable[bytes]) -> bytes:
    """Return the event of a summary of values: those of `scalars` and `histograms`."""
    return _wall_time(wall_time) + _number(2, step) + _bytes(5, b"".join(values))


def scalars(metrics: Mapping[str, float]) -> list[bytes]:
    """Return a value for each number, which TensorBoard keeps in single precision."""
    return [_scalar_head(name) + _single(number) for name, number in metrics.items()]


def histograms(arrays: Mapping[str, NDArray[np.float64]]) -> list[bytes]:
    """Return a value for each array `[N]`, N >= 1, of finite numbers."""
    return [
        _bytes(1, _bytes(1, name.encode()) + _bytes(5, _histogram(array)))
        for name, array in arrays.items()
    ]


def _histogram(values: NDArray[np.float64]) -> bytes:
    counts, limits = np.histogram(values, _BINS)
    numbers = values.min(), values.max(), values.size, values.sum(), np.square(values).sum()
    fields = (_field(i, _DOUBLE) + struct.pack("<d", one) for i, one in enumerate(numbers, 1))
    # the upper limits of the bins: the first is that of an empty one
    filled = np.concatenate([[0.0], counts])
    packed = (_bytes(i, one.astype("<f8").tobytes()) for i, one in ((6, limits), (7, filled)))
    return b"".join((*fields, *packed))


@lru_cache(maxsize=4096)
def _scalar_head(name: str) -> bytes:
    """Return a value but for the four bytes of its number."""
    inside = _bytes(1, name.encode()) + _field(2, _FLOAT)
    return _field(1, _BYTES) + _varint(len(inside) + 4) + inside


def _single(number: float) -> bytes:
    try:
        return struct.pack("<f", number)
    except OverflowError:
        return struct.pack("<f", math.copysign(math.inf, number))


def _wall_time(seconds: float) -> bytes:
    return _field(1, _DOUBLE) + struct.pack("<d", seconds)


def _number(field: int, value: int) -> bytes:
    return _field(field, _VARINT) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _field(field, _BYTES) + _varint(len(value)) + value


def _field(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the lowest first."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)
