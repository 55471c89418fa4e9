"""The pre-up-projection block around an mLSTM cell."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xlstm_rl.kernels import causal_conv1d, causal_conv1d_step, mlstm, mlstm_step
from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.config import XLSTMConfig
from xlstm_rl.memory.layers import (
    LayerNorm,
    block_diagonal_linear,
    conv_init_,
    head_norm,
    output_init_,
    small_init_,
)

Convolve = Callable[..., tuple[Tensor, Tensor]]
Cell = Callable[..., tuple[Tensor, tuple[Tensor, Tensor, Tensor]]]


class MLSTMBlock(nn.Module):
    """A residual block [..., D] -> [..., D] around an mLSTM cell (Beck et al. 2024, figure 11).

    x is normed, projected up and split into u and a gate z; u passes a causal convolution and
    SiLU to give c; q and k are block-diagonal projections of c, v of u; the gates i and f are
    linear in [q, k, v]; `(norm(h) + skip * c) * silu(z)` is projected down and added to x.
    """

    def __init__(self, config: XLSTMConfig, num_blocks: int) -> None:
        super().__init__()
        width, inner, heads = config.width, config.inner_width, config.num_heads
        self.width, self.num_blocks, self.num_heads = width, num_blocks, heads
        self.conv_window = config.conv1d_kernel_size
        gate, backend = config.forget_gate, config.backend
        self._convolve: Convolve = partial(causal_conv1d, backend=backend)
        self._convolve_step: Convolve = partial(causal_conv1d_step, backend=backend)
        self._cell: Cell = partial(
            mlstm, chunk_size=config.chunk_size, forget_gate=gate, backend=backend
        )
        self._cell_step: Cell = partial(mlstm_step, forget_gate=gate, backend=backend)

        self.norm = LayerNorm(width)
        self.up = nn.Linear(width, 2 * inner, bias=config.bias)
        if self.conv_window:
            self.conv_weight = nn.Parameter(torch.empty(inner, self.conv_window))
            self.conv_bias = nn.Parameter(torch.empty(inner))
        size = config.qkv_block_size
        # q, k and v in one: [3 * blocks, from, to]
        self.qkv_weight = nn.Parameter(torch.empty(3 * inner // size, size, size))
        self.qkv_bias = nn.Parameter(torch.empty(3 * inner)) if config.bias else None
        # i and f in one: the first H rows are i, the others f
        self.gate_weight = nn.Parameter(torch.empty(2 * heads, 3 * inner))
        self.gate_bias = nn.Parameter(torch.empty(2 * heads))
        self.head_norm_weight = nn.Parameter(torch.empty(inner))
        self.skip = nn.Parameter(torch.empty(inner))
        self.down = nn.Linear(inner, width, bias=config.bias)
        self.reset_parameters()

        head = inner // heads
        self.state_shapes: dict[str, tuple[int, ...]] = {}
        if self.conv_window:
            self.state_shapes["conv"] = (self.conv_window - 1, inner)
        self.state_shapes |= {"C": (heads, head, head), "n": (heads, head), "m": (heads,)}

    def reset_parameters(self) -> None:
        """Draw fresh weights, as published: gates that look at nothing and remember long."""
        self.norm.reset_parameters()
        small_init_(self.up.weight, self.width)
        small_init_(self.qkv_weight, self.width)
        output_init_(self.down.weight, self.width, self.num_blocks)
        if self.conv_window:
            conv_init_(self.conv_weight, self.conv_bias)
        for bias in (self.up.bias, self.qkv_bias, self.down.bias):
            if bias is not None:
                nn.init.zeros_(bias)
        nn.init.zeros_(self.gate_weight)
        with torch.no_grad():
            self.gate_bias[: self.num_heads].normal_(std=0.1)
            self.gate_bias[self.num_heads :] = torch.linspace(3.0, 6.0, self.num_heads)
        nn.init.ones_(self.head_norm_weight)
        nn.init.ones_(self.skip)

    def forward(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, T, D] from the state `tensors` with reset [B, T]."""
        return self._run(x, tensors, reset, self._convolve, self._cell)

    def step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool = False
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, D] from the state `tensors`, with `inplace` into them, with reset [B]."""
        convolve, cell = self._convolve_step, self._cell_step
        if inplace:
            convolve, cell = partial(convolve, inplace=True), partial(cell, inplace=True)
        y, new = self._run(x, tensors, reset, convolve, cell)
        if inplace and tensors is not None and new[0] is not tensors[0]:
            # under autocast the convolution worked on a copy in another dtype
            new = (tensors[0].copy_(new[0]), *new[1:])
        return y, new

    def _run(
        self,
        x: Tensor,
        tensors: StateTensors | None,
        reset: Tensor | None,
        convolve: Convolve,
        cell: Cell,
    ) -> tuple[Tensor, StateTensors]:
        """Do what a sequence and a step have in common: everything but the two kernels."""
        lead, heads = x.shape[:-1], self.num_heads
        u, z = self.up(self.norm(x)).chunk(2, -1)
        conv_state: StateTensors = ()
        if self.conv_window:
            old = None if tensors is None else tensors[0].to(u.dtype)
            c, new = convolve(u, self.conv_weight, self.conv_bias, reset, old, activation="silu")
            conv_state = (new,)
        else:
            c = u
        qkv = block_diagonal_linear(torch.cat([c, c, u], -1), self.qkv_weight)
        if self.qkv_bias is not None:
            qkv = qkv + self.qkv_bias.to(qkv.dtype)  # differs under autocast
        i, f = F.linear(qkv, self.gate_weight, self.gate_bias).chunk(2, -1)
        q, k, v = qkv.view(*lead, 3, heads, -1).unbind(-3)
        h, state = cell(q, k, v, i, f, reset, None if tensors is None else tensors[-3:])
        h = torch.addcmul(head_norm(h, self.head_norm_weight), self.skip, c) * F.silu(z)
        return x + self.down(h), (*conv_state, *state)
