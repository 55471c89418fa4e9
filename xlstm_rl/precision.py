"""Numbers that keep their precision when the weights around them are cast."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import Self


class KeepsPrecision(nn.Module):
    """A module whose own buffers keep their dtypes: they are moved, but never cast.

    Statistics in float64 and the bounds of a space would be rounded by `policy.half()`, and a
    `policy.double()` afterwards could not bring back what was lost. `cast_like` is the exception:
    an empty buffer that follows the weights, and so tells their dtype.
    """

    cast_like: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("cast_like", torch.empty(0), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {name: x for name, x in self._buffers.items() if x is not None}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            new: Any = self._buffers[name]
            if new.dtype != old.dtype and name != "cast_like":
                self._buffers[name] = old.to(new.device)
        return self
