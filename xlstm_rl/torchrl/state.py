"""The state of a memory as one vector, which travels under one key."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from xlstm_rl.memory import StateTensors


class StateLayout:
    """Puts the tensors of a state side by side in one vector `[N, S]`, and back.

    TorchRL handles each key several times a step, which costs more than to copy the numbers.

    Args:
        shapes: of each tensor, without the batch dimension.
    """

    def __init__(self, shapes: Sequence[tuple[int, ...]]) -> None:
        self.shapes = tuple(shapes)
        self._sizes = [math.prod(shape) for shape in self.shapes]
        # a memory without state carries one zero: storages refuse tensors without elements
        self.size = max(sum(self._sizes), 1)

    def pack(self, tensors: StateTensors, like: Tensor) -> Tensor:
        """Return tensors `[N, ...]` as vectors `[N, S]` of the dtype of `like` `[N, S]`."""
        if not tensors:
            return torch.zeros_like(like)
        return torch.cat([tensor.flatten(1).to(like.dtype) for tensor in tensors], 1)

    def unpack(self, packed: Tensor, weight: Tensor) -> StateTensors:
        """Return vectors `[N, S]` as tensors, in a dtype that fits the weights."""
        if not self.shapes:
            return ()
        parts = packed.to(state_dtype(weight)).split(self._sizes, 1)
        return tuple(
            part.contiguous().view(-1, *shape)
            for part, shape in zip(parts, self.shapes, strict=True)
        )


def state_dtype(weight: Tensor) -> torch.dtype:
    """Return the dtype of a stored state: that of the weights, float32 where they are halves."""
    halves = weight.dtype in (torch.float16, torch.bfloat16)
    return torch.float32 if halves else weight.dtype
