"""Batches of numbers that are NumPy arrays or tensors, as the environments on them need it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

Values = Any
"""NumPy arrays in an environment on arrays, tensors in one on tensors."""

_BITS = 62


class BatchValues:
    """Make, draw, write and convert numbers of environments; both kinds draw the same ones.

    Args:
        device: Where they are.
        tensors: Whether tensors go in and come out. They are tensors inside with `tensors` or away
            from the CPU, and else arrays, whose calls cost a fraction.
    """

    def __init__(self, device: torch.device | str, tensors: bool) -> None:
        self.device = torch.device(device)
        self.tensors = tensors
        self._on_tensors = tensors or self.device.type != "cpu"
        self.generator = torch.Generator(self.device)
        self._bit = _BITS
        self._words: Values = None

    def seed_draws(self, seed: int) -> None:
        """Begin anew with the random numbers."""
        self.generator.manual_seed(seed)
        self._bit = _BITS

    def zeros(self, *shape: int, dtype: str = "int64") -> Values:
        """Return zeros, integers if nothing else is asked for."""
        if self._on_tensors:
            return torch.zeros(shape, dtype=getattr(torch, dtype), device=self.device)
        return np.zeros(shape, dtype=dtype)

    def array(self, numbers: Any) -> Values:
        """Return integers as an array or tensor."""
        array = np.array(numbers, dtype=np.int64)
        return torch.from_numpy(array).to(self.device) if self._on_tensors else array

    def draw_integers(self, high: int, *shape: int) -> Values:
        """Draw integers from 0 to `high - 1`."""
        drawn = torch.randint(high, shape, generator=self.generator, device=self.device)
        return drawn if self._on_tensors else drawn.numpy()

    def draw_signs(self, count: int) -> None:
        """Draw -1 or 1 for each of `count` environments; `signs` reads them.

        Called at every step it costs next to nothing: the bits of one number serve many steps.
        """
        self._bit += 1
        if self._bit >= _BITS:
            self._bit, self._words = 0, self.draw_integers(2**_BITS, count)

    def signs(self, rows: Values) -> Values:
        """Return what `draw_signs` drew last for some rows: `[N]` of indices, `[B]` for a mask."""
        words = self._words if is_mask(rows) else self._words[rows]
        return 2 * (words >> self._bit & 1) - 1

    def draw_orders(self, count: int, size: int) -> Values:
        """Draw random orders of the numbers 0 to `size - 1`, `[count, size]`."""
        keys = torch.rand(count, size, generator=self.generator, device=self.device)
        return keys.argsort(1) if self._on_tensors else keys.argsort(1).numpy()

    def put(self, target: Values, rows: Values, values: Values) -> None:
        """Write into some rows of `target [B]`.

        Args:
            target: Written into.
            rows: Indices `[N]`, or, on tensors, a mask `[B]`: with that, nobody waits for how many
                rows it has.
            values: A number; or `[N]` with indices, `[B]` with a mask.
        """
        if not is_mask(rows):
            if self._on_tensors and not isinstance(values, Tensor):
                # `target[rows] = 0` copies the 0 to the device, and the host waits for it
                target.index_fill_(0, rows, values)
            else:
                target[rows] = values
        elif isinstance(values, Tensor):
            target.copy_(torch.where(rows, values, target))
        else:
            target.masked_fill_(rows, values)

    def _out(self, values: Values) -> Any:
        return values.cpu().numpy() if self._on_tensors and not self.tensors else values

    def _in(self, values: Any) -> Values:
        if self._on_tensors:
            return torch.as_tensor(values, device=self.device)
        return values.numpy() if isinstance(values, Tensor) else np.asarray(values)


def is_mask(rows: Values) -> bool:
    """Return whether some rows are a mask `[B]` of tensors, and not indices."""
    return isinstance(rows, Tensor) and rows.dtype == torch.bool
