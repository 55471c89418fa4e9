"""A memory of residual blocks, each with a state of its own."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.types import all_finite, restart
from xlstm_rl.memory.base import Memory, StateKey, StateTensors
from xlstm_rl.memory.gates import Gates
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.transforms import spelt_out


class ResidualStack(Memory):
    """Blocks [B, T, D] -> [B, T, D], one behind the other, and a norm.

    Its state has one nested entry per block: `("block_0", "C")` and so on.

    Args:
        width: size D.
        blocks: each has `state_shapes`, is called with a sequence, and has `step` and `gates_over`.
        final_norm: whether a LayerNorm follows the last one.
    """

    def __init__(self, width: int, blocks: Sequence[nn.Module], final_norm: bool) -> None:
        own: list[Any] = list(blocks)
        shapes: dict[StateKey, tuple[int, ...]] = {
            (f"block_{i}", name): shape
            for i, block in enumerate(own)
            for name, shape in block.state_shapes.items()
        }
        super().__init__(width, shapes)
        self.blocks = nn.ModuleList(blocks)
        self.norm: LayerNorm | nn.Identity = LayerNorm(width) if final_norm else nn.Identity()
        self._counts = [len(block.state_shapes) for block in own]

    def _sequence(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        new_tensors: StateTensors = ()
        for block, old in zip(self.blocks, self.per_block(tensors), strict=True):
            x, new = block(x, old, reset)
            new_tensors += new
        return self.norm(x), new_tensors

    def _step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool
    ) -> tuple[Tensor, StateTensors]:
        new_tensors: StateTensors = ()
        for block, old in zip(self.blocks, self.per_block(tensors), strict=True):
            x, new = cast(Any, block).step(x, old, reset, inplace)
            new_tensors += new
        return self.norm(x), new_tensors

    @torch.no_grad()
    def gates(
        self, x: Tensor, tensors: StateTensors | None = None, reset: Tensor | None = None
    ) -> dict[str, Gates]:
        """Return the gates over x [B, T, D] of each block that has any, by its number."""
        found: dict[str, Gates] = {}
        for index, (block, old) in enumerate(
            zip(self.blocks, self.per_block(tensors), strict=True)
        ):
            gates: Gates | None = cast(Any, block).gates_over(x, old, reset)
            if gates is not None:
                found[str(index)] = gates
            x, _ = block(x, old, reset)
        return found

    def per_block(self, tensors: StateTensors | None) -> list[StateTensors | None]:
        """Cut the flat state into that of each block."""
        if tensors is None:
            return [None] * len(self._counts)
        parts: list[StateTensors | None] = []
        start = 0
        for count in self._counts:
            parts.append(tensors[start : start + count])
            start += count
        return parts


class PlainBlock(nn.Module):
    """A block in torch's own operations, which every transform and every export follows.

    A sequence in which something is not finite runs step by step: what a step does not see is left
    out there, where the products of a whole sequence multiply it by zero, which makes NaN of it.

    Args:
        state_shapes: name and shape of each state tensor, without the batch dimension.
    """

    def __init__(self, state_shapes: dict[str, tuple[int, ...]]) -> None:
        super().__init__()
        self.state_shapes = state_shapes

    @abstractmethod
    def _run(
        self, x: Tensor, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, T, D] with reset [B, T]."""

    @abstractmethod
    def _run_step(self, x: Tensor, tensors: StateTensors) -> tuple[Tensor, StateTensors]:
        """Run x [B, D] from a state in which rows that are reset are zero."""

    def gates_over(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> Gates | None:
        """Return the gates over x [B, T, D]; None: there are none."""
        return None

    def forward(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, T, D] from the state `tensors` with reset [B, T]."""
        if tensors is None:
            tensors = self._fresh(x)
        y, after = self._run(x, tensors, reset)
        if torch.compiler.is_compiling() or spelt_out():
            return y, after
        # What comes out as well: a finite input can overflow in between, in a norm first of all.
        if all_finite(*[one.detach() for one in (x, *tensors, y, *after)]):
            return y, after
        outputs = []
        for t in range(x.shape[1]):
            y, tensors = self.step(x[:, t], tensors, None if reset is None else reset[:, t])
            outputs.append(y)
        return torch.stack(outputs, 1), tensors

    def step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool = False
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, D] from the state `tensors`, with `inplace` into them, with reset [B]."""
        given = self._fresh(x) if tensors is None else tensors
        old = given
        if reset is not None:
            old = tuple(_restarted(tensor, reset) for tensor in given)
        y, new = self._run_step(x, old)
        if not inplace or tensors is None:
            return y, new
        for tensor, value in zip(given, new, strict=True):
            tensor.copy_(value)
        return y, given

    def _fresh(self, x: Tensor) -> StateTensors:
        return tuple(x.new_zeros(x.shape[0], *shape) for shape in self.state_shapes.values())


def _restarted(tensor: Tensor, reset: Tensor) -> Tensor:
    if spelt_out():  # looks at no number
        return tensor.masked_fill(reset.view(-1, *(1,) * (tensor.dim() - 1)), 0.0)
    return restart(tensor, reset)
