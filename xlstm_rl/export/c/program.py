"""A program under construction: its statements, the weights and the memory that they use."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NoReturn

import torch
from torch import Tensor

from xlstm_rl.errors import ExportError
from xlstm_rl.export.c.weights import Weights

C_TYPES = {
    torch.float32: "float",
    torch.float64: "double",
    torch.bool: "uint8_t",
    torch.uint8: "uint8_t",
    torch.uint16: "uint16_t",
    torch.uint32: "uint32_t",
    torch.uint64: "uint64_t",
    torch.int8: "int8_t",
    torch.int16: "int16_t",
    torch.int32: "int32_t",
    torch.int64: "int64_t",
}


def refuse(what: str) -> NoReturn:
    """Say that a policy has something that this format does not know."""
    raise ExportError(f"the format c does not support {what}; try onnx or pt2")


@dataclass(frozen=True)
class Vector:
    """Floats in the memory for one step."""

    at: str
    """A C expression: where they begin."""

    size: int


class Program:
    """The body of a step.

    Args:
        int8: keep matrices as bytes.
    """

    def __init__(self, int8: bool) -> None:
        self.weights = Weights(int8)
        self.headers: dict[str, None] = {"layers.h": None}
        self.lines: list[str] = []
        self._own = self._shared = 0

    def say(self, *lines: str) -> None:
        """Append statements."""
        self.lines += lines

    def include(self, header: str) -> None:
        """Use functions of a header."""
        self.headers[header] = None

    def vector(self, size: int) -> Vector:
        """Return room for some floats, which nothing else writes into."""
        at = self._own
        self._own += -(-size // 16) * 16
        return Vector(f"work + {at}", size)

    def shared(self, size: int) -> Vector:
        """Return room that the next statement may write into, and any other one too."""
        self._shared = max(self._shared, size)
        return Vector("scratch", size)

    @property
    def own_work(self) -> int:
        """Floats of memory for one step that have one use each."""
        return self._own

    @property
    def work(self) -> int:
        """Floats of memory for one step, the shared ones behind the others."""
        return self._own + self._shared

    def floats(self, x: Tensor | None) -> str:
        """Return the address of numbers of the weights file; null where there are none."""
        return "0" if x is None else f"AT(float, {self.weights.floats(x)})"

    def doubles(self, x: Tensor) -> str:
        """Return the address of numbers of double precision."""
        return f"AT(double, {self.weights.doubles(x)})"

    def matrix(self, x: Tensor) -> str:
        """Return a matrix `[rows, columns]`, whose rows are outputs."""
        values, scales = self.weights.matrix(x)
        if scales is None:
            return f"{{AT(float, {values}), 0}}"
        return f"{{AT(int8_t, {values}), AT(float, {scales})}}"


def braces(numbers: Iterable[int | str]) -> str:
    """Return a C initialiser."""
    return "{" + ", ".join(map(str, numbers)) + "}"


def number(x: float) -> str:
    """Return a C constant of single precision."""
    return f"{x!r}f"
