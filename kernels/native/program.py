"""Calls of the library in a row, as one call.

What a call points to is laid out once. From then on a whole minibatch costs Python a few
microseconds: between two calls it takes 50 to 100, one thread's while the others wait (measured).
"""

import ctypes
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from xlstm_rl.kernels.native.arguments import address_of, run, struct
from xlstm_rl.kernels.native.held import NotCoveredError

CallStruct = struct("program_call", "workers", "function arguments")
ProgramStruct = struct("program_arguments", "count", "calls")
_Row = struct("row_tensor", "bytes", "source target")
_Rows = struct("rows_arguments", "count rows tensors", "index each")
_Sum = struct("sum_arguments", "size", "a b to")


class Call(NamedTuple):
    """A function of the library, and the struct that it is given."""

    name: str
    arguments: Any


class Program:
    """Calls, one after the other.

    Args:
        calls: in their order. Whoever made them keeps alive what they point to.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = tuple(calls)
        """What it runs, and keeps alive."""
        self._calls = (CallStruct * len(calls))()
        for place, (name, arguments) in zip(self._calls, calls, strict=True):
            place.workers = getattr(arguments, "workers", 0)
            place.function, place.arguments = address_of(name), ctypes.addressof(arguments)
        self._program = ProgramStruct(len(calls), ctypes.addressof(self._calls))

    def run(self) -> int:
        """Make the calls, up to the first that returns a status: its number from 1, or 0."""
        return run("xl_program", self._program)


class Rows:
    """Rows of several tensors, taken anew to the same places whenever `call` is run.

    Args:
        tensors: each on the CPU with its numbers in a row, all of the same length.
        count: how many rows are taken.

    Raises:
        NotCoveredError: C cannot read one of them.
    """

    def __init__(self, tensors: Sequence[Tensor], count: int) -> None:
        rows = len(tensors[0])
        for one in tensors:
            if not (one.is_cpu and one.is_contiguous() and len(one) == rows):
                raise NotCoveredError
        self.taken = [one.new_empty(count, *one.shape[1:]) for one in tensors]
        """`[count, ...]` each."""
        self._tensors = tuple(tensors)
        self._each = (_Row * len(tensors))()
        for place, source, target in zip(self._each, tensors, self.taken, strict=True):
            place.bytes = source[:1].nbytes
            place.source, place.target = source.data_ptr(), target.data_ptr()
        self._numbers = (ctypes.c_int64 * count)()
        index, each = map(ctypes.addressof, (self._numbers, self._each))
        self.call = Call("xl_rows", _Rows(count, rows, len(tensors), index, each))
        """Fails where a number is that of no row."""

    def choose(self, numbers: Sequence[Any]) -> None:
        """Say which rows the next run takes, ``count`` of them."""
        if len(numbers) != len(self._numbers):
            raise ValueError(f"{len(self._numbers)} rows are taken, got {len(numbers)} numbers")
        self._numbers[:] = [*numbers]


def sum_into(a: Tensor, b: Tensor) -> Call:
    """Return what adds ``b`` to ``a``, float32 of one shape with their numbers in a row."""
    return Call("xl_sum", _Sum(a.numel(), a.data_ptr(), b.data_ptr(), a.data_ptr()))
