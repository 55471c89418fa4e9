"""The last steps side by side: the memory that stacked frames are."""

import torch
from torch import Tensor, nn

from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.baselines import mlp_layers
from xlstm_rl.memory.config import FrameStackConfig
from xlstm_rl.memory.residual import PlainBlock, ResidualStack


class FrameStackBlock(PlainBlock):
    """An MLP on the last `frames` steps [..., frames * D] -> [..., D].

    Steps before the beginning of an episode are zeros.
    """

    def __init__(self, config: FrameStackConfig) -> None:
        super().__init__({"past": (config.frames - 1, config.width)})
        self.frames = config.frames
        width, hidden = config.width, config.first_width
        first = [nn.Linear(config.frames * width, hidden), nn.SiLU()]
        first += [nn.Linear(hidden, width), nn.SiLU()]
        self.network = nn.Sequential(*first, *mlp_layers(width, config.num_layers - 1))

    def _run(
        self, x: Tensor, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        length, past = x.shape[1], self.frames - 1
        steps = torch.cat([tensors[0], x], 1)  # [B, past + T, D]
        if reset is None:
            frames = [steps[:, i : i + length] for i in range(self.frames)]
            return self.network(torch.cat(frames, -1)), (steps[:, length:],)
        episode = torch.nn.functional.pad(reset.long().cumsum(1), (past, 0))
        frames = []
        for i in range(self.frames):
            is_over = episode[:, i : i + length] != episode[:, past:]
            frames.append(steps[:, i : i + length].masked_fill(is_over[..., None], 0.0))
        is_over = episode[:, length:] != episode[:, -1:]
        after = steps[:, length:].masked_fill(is_over[..., None], 0.0)
        return self.network(torch.cat(frames, -1)), (after,)

    def _run_step(self, x: Tensor, tensors: StateTensors) -> tuple[Tensor, StateTensors]:
        steps = torch.cat([tensors[0], x[:, None]], 1)
        return self.network(steps.flatten(1)), (steps[:, 1:],)


class FrameStackMemory(ResidualStack):
    """An MLP over the last `frames` steps of an episode; its state is those steps.

    The first layers map frames D -> hidden -> D, each further one of `num_blocks` D -> 3 D -> D.
    """

    def __init__(self, config: FrameStackConfig) -> None:
        super().__init__(config.width, [FrameStackBlock(config)], final_norm=False)
        self.config = config
        self.span = config.frames - 1
