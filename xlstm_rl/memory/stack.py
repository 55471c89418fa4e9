"""The xLSTM memory: mLSTM and sLSTM blocks in one residual stack."""

from typing import cast

import torch
from torch import Tensor

from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.config import XLSTMConfig
from xlstm_rl.memory.gates import Gates
from xlstm_rl.memory.mlstm_block import MLSTMBlock
from xlstm_rl.memory.residual import ResidualStack
from xlstm_rl.memory.slstm_block import SLSTMBlock


class XLSTMStack(ResidualStack):
    """A stack of mLSTM and sLSTM blocks [B, T, D] -> [B, T, D] (Beck et al. 2024, section 2.4).

    Its state has one nested entry per block: `("block_0", "C")` and so on.
    """

    def __init__(self, config: XLSTMConfig) -> None:
        types = config.block_types
        blocks: list[MLSTMBlock | SLSTMBlock] = [
            MLSTMBlock(config, len(types)) if letter == "m" else SLSTMBlock(config, len(types), i)
            for i, letter in enumerate(types)
        ]
        super().__init__(config.width, blocks, config.final_norm)
        self.config = config

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
