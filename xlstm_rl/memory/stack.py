"""The xLSTM memory: mLSTM and sLSTM blocks in one residual stack."""

from xlstm_rl.memory.config import XLSTMConfig
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
