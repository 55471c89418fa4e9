"""The xLSTM memory: mLSTM and sLSTM blocks in one residual stack."""

from typing import cast

import torch
from torch import Tensor, nn

from xlstm_rl.memory.base import Memory, StateKey, StateTensors
from xlstm_rl.memory.config import XLSTMConfig
from xlstm_rl.memory.gates import Gates
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.slstm_block import SLSTMBlock


class XLSTMStack(Memory):
    """A stack of mLSTM and sLSTM blocks [B, T, D] -> [B, T, D] (Beck et al. 2024, section 2.4).

    Its state has one nested entry per block: `("block_0", "C")` and so on.
    """

    def __init__(self, config: XLSTMConfig) -> None:
        types = config.block_types
        blocks: list[MLSTMBlock | SLSTMBlock] = [
            MLSTMBlock(config, len(types)) if letter == "m" else SLSTMBlock(config, len(types), i)
            for i, letter in enumerate(types)
        ]
        shapes: dict[StateKey, tuple[int, ...]] = {
            (f"block_{i}", name): shape
            for i, block in enumerate(blocks)
            for name, shape in block.state_shapes.items()
        }
        super().__init__(config.width, shapes)
        self.config = config
        self.blocks = nn.ModuleList(blocks)
        self.norm: LayerNorm | nn.Identity = nn.Identity()
        if config.final_norm:
            self.norm = LayerNorm(config.width)
        self._counts = [len(block.state_shapes) for block in blocks]

    def _sequence(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        new_tensors: StateTensors = ()
        for block, old in zip(self.blocks, self._per_block(tensors), strict=True):
            x, new = block(x, old, reset)
            new_tensors += new
        return self.norm(x), new_tensors

    def _step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool
    ) -> tuple[Tensor, StateTensors]:
        new_tensors: StateTensors = ()
        for block, old in zip(self.blocks, self._per_block(tensors), strict=True):
            x, new = cast("MLSTMBlock | SLSTMBlock", block).step(x, old, reset, inplace)
            new_tensors += new
        return self.norm(x), new_tensors

    @torch.no_grad()
    def gates(
        self, x: Tensor, tensors: StateTensors | None = None, reset: Tensor | None = None
    ) -> dict[str, Gates]:
        """Return the gates over x [B, T, D] of each block, by its number."""
        found = {}
        for index, (block, old) in enumerate(
            zip(self.blocks, self._per_block(tensors), strict=True)
        ):
            found[str(index)] = cast(MLSTMBlock | SLSTMBlock, block).gates(x, old, reset)
            x, _ = block(x, old, reset)
        return found

    def _per_block(self, tensors: StateTensors | None) -> list[StateTensors | None]:
        """Cut the flat state into that of each block."""
        if tensors is None:
            return [None] * len(self._counts)
        parts: list[StateTensors | None] = []
        start = 0
        for count in self._counts:
            parts.append(tensors[start : start + count])
            start += count
        return parts
