"""Minimal GRUs: what is left of a GRU when its gates no longer see its state."""

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from xlstm_rl.kernels.linear.scan import linear_scan
from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.config import MinGRUConfig
from xlstm_rl.memory.gates import Gates
from xlstm_rl.memory.layers import LayerNorm
from xlstm_rl.memory.residual import PlainBlock, ResidualStack


class MinGRUBlock(PlainBlock):
    """A residual block [..., D] -> [..., D] around a minGRU (Feng et al. 2024, arXiv:2410.01201).

    With u the normed input, `z_t = sigmoid(W_z u_t)`, `h_t = (1 - z_t) h_{t-1} + z_t W_h u_t`, and
    `W_o h_t` is added to x.
    """

    def __init__(self, config: MinGRUConfig) -> None:
        inner = config.state_factor * config.width
        super().__init__({"h": (inner,)})
        self.norm = LayerNorm(config.width)
        self.gates = nn.Linear(config.width, 2 * inner)  # z and the candidate
        self.out = nn.Linear(inner, config.width)

    def _run(
        self, x: Tensor, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        z, candidate = self._gates(x)
        h, after = linear_scan(1.0 - z, z * candidate, reset, tensors[0])
        return x + self.out(h), (after,)

    def _run_step(self, x: Tensor, tensors: StateTensors) -> tuple[Tensor, StateTensors]:
        z, candidate = self._gates(x)
        h = (1.0 - z) * tensors[0] + z * candidate
        return x + self.out(h), (h,)

    def gates_over(self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None) -> Gates:
        """Return the gates over x [B, T, D], of one head [B, T, 1, inner]."""
        z, _ = self.gates(self.norm(x)).chunk(2, -1)
        return Gates(logsigmoid(z)[:, :, None], logsigmoid(-z)[:, :, None])

    def _gates(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, candidate = self.gates(self.norm(x)).chunk(2, -1)
        return torch.sigmoid(z), candidate


class MinGRUStack(ResidualStack):
    """A stack of minGRU blocks; state h, [B, state_factor D] for each."""

    def __init__(self, config: MinGRUConfig) -> None:
        blocks = [MinGRUBlock(config) for _ in range(config.num_layers)]
        super().__init__(config.width, blocks, config.final_norm)
        self.config = config
