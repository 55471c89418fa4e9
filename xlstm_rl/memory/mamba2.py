"""Mamba-2: a state space whose decay and inputs the input selects."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu, softplus

from xlstm_rl.kernels import causal_conv1d, causal_conv1d_step
from xlstm_rl.kernels.linear.chunkwise import gated_linear
from xlstm_rl.kernels.linear.reference import gated_linear_step
from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.config import Mamba2Config
from xlstm_rl.memory.gates import FORGETS_ALL, Gates
from xlstm_rl.memory.layers import LayerNorm, conv_init_
from xlstm_rl.memory.residual import PlainBlock, ResidualStack

_STEPS = (0.001, 0.1)
"""Between these the step sizes of the heads begin."""


class Mamba2Block(PlainBlock):
    """A residual block [..., D] -> [..., D] (Dao & Gu 2024, arXiv:2405.21060, section 7).

    The normed input is projected to z, x, B, C and dt; x, B and C pass a causal convolution and
    SiLU. With `dt = softplus(dt + b)` and `A < 0` for each head, `S_t = exp(A dt) S_{t-1} +
    B (dt x)^T`, `y = C S_t + d x`, and `norm(y silu(z))` is projected down and added. B and C are
    the same for all heads.
    """

    def __init__(self, config: Mamba2Config) -> None:
        width, size = config.width, config.state_size
        inner = config.num_heads * config.head_size
        mixed = inner + 2 * size
        super().__init__(
            {
                "conv": (config.conv1d_kernel_size - 1, mixed),
                "S": (config.num_heads, size, config.head_size),
            }
        )
        self.sizes = (inner, mixed, config.num_heads)
        self.state_size, self.head_size = size, config.head_size
        self.chunk_size = config.chunk_size
        self.norm = LayerNorm(width)
        self.project = nn.Linear(width, sum(self.sizes), bias=False)
        self.conv_weight = nn.Parameter(torch.empty(mixed, config.conv1d_kernel_size))
        self.conv_bias = nn.Parameter(torch.empty(mixed))
        self.log_a = nn.Parameter(torch.empty(config.num_heads))
        self.step_bias = nn.Parameter(torch.empty(config.num_heads))
        self.skip = nn.Parameter(torch.ones(config.num_heads))
        self.inner_norm = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, width, bias=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw fresh weights: A from U(1, 16), dt log-uniform from .001 to .1, as published."""
        conv_init_(self.conv_weight, self.conv_bias)
        with torch.no_grad():
            self.log_a.uniform_(1.0, 16.0).log_()
            low, high = map(math.log, _STEPS)
            dt = self.step_bias.uniform_(low, high).exp()
            self.step_bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus of it is dt

    def _run(
        self, x: Tensor, tensors: StateTensors, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        z, mixed, dt = self._projected(x)
        mixed = mixed.to(tensors[0].dtype)  # autocast made it narrower than the state
        mixed, conv = causal_conv1d(mixed, self.conv_weight, self.conv_bias, reset, tensors[0])
        q, k, v, decay, inner = self._inputs(mixed, dt)
        y, state = gated_linear(q, k, v, decay, reset, tensors[1], chunk_size=self.chunk_size)
        return self._rest(x, y, inner, z), (conv, state)

    def _run_step(self, x: Tensor, tensors: StateTensors) -> tuple[Tensor, StateTensors]:
        z, mixed, dt = self._projected(x)
        mixed = mixed.to(tensors[0].dtype)
        mixed, conv = causal_conv1d_step(mixed, self.conv_weight, self.conv_bias, None, tensors[0])
        q, k, v, decay, inner = self._inputs(mixed, dt)
        y, state = gated_linear_step(q, k, v, decay, None, tensors[1])
        return self._rest(x, y, inner, z), (conv, state)

    def gates_over(self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None) -> Gates:
        """Return dt as the input gate and exp(A dt) as the forget gate, [B, T, H]."""
        _, _, dt = self._projected(x)
        dt = softplus(dt + self.step_bias)
        return Gates(dt.log(), self.rate() * dt)

    def rate(self) -> Tensor:
        """Return A of each head, [H]."""
        return -self.log_a.clamp_max(FORGETS_ALL).exp()

    def _projected(self, x: Tensor) -> tuple[Tensor, ...]:
        projected: Tensor = self.project(self.norm(x))
        return tuple(projected.split(self.sizes, -1))

    def _inputs(self, mixed: Tensor, dt: Tensor) -> tuple[Tensor, ...]:
        """Return C, B, dt x, A dt and x for each head, [..., H, N or P]."""
        inner, _, heads = self.sizes
        x, b, c = silu(mixed).split([inner, self.state_size, self.state_size], -1)
        x = x.unflatten(-1, (heads, self.head_size))
        dt = softplus(dt + self.step_bias)[..., None]
        decay = self.rate()[:, None] * dt
        shape = (*x.shape[:-1], self.state_size)
        return c[..., None, :].expand(shape), b[..., None, :].expand(shape), dt * x, decay, x

    def _rest(self, x: Tensor, y: Tensor, inner: Tensor, z: Tensor) -> Tensor:
        y = (y + self.skip[:, None] * inner).flatten(-2) * silu(z)
        y = rms_norm(y, y.shape[-1:], self.inner_norm, 1e-5)
        added: Tensor = self.out(y)
        return x + added


class Mamba2Stack(ResidualStack):
    """A stack of Mamba-2 blocks; state conv [B, W-1, C] and S [B, H, N, P] for each."""

    def __init__(self, config: Mamba2Config) -> None:
        blocks = [Mamba2Block(config) for _ in range(config.num_layers)]
        super().__init__(config.width, blocks, config.final_norm)
        self.config = config
