"""The post-up-projection block around an sLSTM cell."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from xlstm_rl.kernels import causal_conv1d, causal_conv1d_step, slstm, slstm_step
from xlstm_rl.kernels.layers import block_diagonal_linear, head_norm
from xlstm_rl.kernels.native import slstm_block as native
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.config import XLSTMConfig
from xlstm_rl.memory.layers import (
    GatedFeedForward,
    LayerNorm,
    conv_init_,
    small_init_,
    untouched,
)

Convolve = Callable[..., tuple[Tensor, Tensor]]
Cell = Callable[..., tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]]


class SLSTMBlock(nn.Module):
    """A residual block [..., D] -> [..., D] around an sLSTM cell (Beck et al. 2024, figure 10).

    x is normed; i and f come from its causal convolution with SiLU, z and o from itself, each by
    one matrix per head; the normed output of the cell is added to x, and after another norm so is
    a gated feed-forward.
    """

    def __init__(self, config: XLSTMConfig, num_blocks: int, block_index: int) -> None:
        super().__init__()
        width = config.width
        heads = config.num_heads if config.slstm_num_heads is None else config.slstm_num_heads
        window = config.conv1d_kernel_size
        if config.slstm_conv1d_kernel_size is not None:
            window = config.slstm_conv1d_kernel_size
        self.width, self.num_heads, self.conv_window = width, heads, window
        self.depth = block_index / (num_blocks - 1) if num_blocks > 1 else 0.0
        gate, backend = config.forget_gate, config.backend
        self.backend = backend
        self._convolve: Convolve = partial(causal_conv1d, backend=backend)
        self._convolve_step: Convolve = partial(causal_conv1d_step, backend=backend)
        self._cell: Cell = partial(slstm, forget_gate=gate, backend=backend)
        self._cell_step: Cell = partial(slstm_step, forget_gate=gate, backend=backend)

        head = width // heads
        self.norm = LayerNorm(width)
        if window:
            self.conv_weight = nn.Parameter(torch.empty(width, window))
            self.conv_bias = nn.Parameter(torch.empty(width))
        # the gates in the order i, f, z, o, as the kernel has them
        self.input_weight = nn.Parameter(torch.empty(4, heads, head, head))  # from, to
        self.recurrent_weight = nn.Parameter(torch.empty(4, heads, head, head))  # from, to
        self.gate_bias = nn.Parameter(torch.empty(4, heads, head))
        self.head_norm_weight = nn.Parameter(torch.empty(width))
        self.feed_forward_norm: LayerNorm | None = None
        self.feed_forward: GatedFeedForward | None = None
        if config.feedforward_width:
            self.feed_forward_norm = LayerNorm(width)
            self.feed_forward = GatedFeedForward(
                width,
                config.feedforward_width,
                config.feedforward_activation,
                config.feedforward_bias,
                num_blocks,
            )
        hidden = config.feedforward_width
        self._native_options = (heads, window, hidden, config.feedforward_activation, gate)
        self.reset_parameters()

        self.state_shapes: dict[str, tuple[int, ...]] = {}
        if window:
            self.state_shapes["conv"] = (window - 1, width)
        self.state_shapes |= {name: (heads, head) for name in ("h", "c", "n", "m")}

    def reset_parameters(self) -> None:
        """Draw fresh weights, as published: no memory mixing, forgetting from long to short."""
        self.norm.reset_parameters()
        if self.conv_window:
            conv_init_(self.conv_weight, self.conv_bias)
        small_init_(self.input_weight, self.width)
        nn.init.zeros_(self.recurrent_weight)
        nn.init.zeros_(self.gate_bias)
        head = self.gate_bias.shape[-1]
        ramp = torch.arange(head) / max(head - 1, 1)
        with torch.no_grad():
            self.gate_bias[1] = 5.0 - 12.0 * ramp ** (0.3 + 1.3 * self.depth)
        nn.init.ones_(self.head_norm_weight)
        if self.feed_forward is not None and self.feed_forward_norm is not None:
            self.feed_forward_norm.reset_parameters()
            self.feed_forward.reset_parameters()

    def forward(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, T, D] from the state `tensors` with reset [B, T]."""
        weights = self._native_weights(x, tensors, reset)
        if weights is not None:
            state = self._native_state(x, tensors)
            y, after = native.sequence(x, reset, state, weights, self._native_options)
            return y, after[-len(self.state_shapes) :]
        return self._run(x, tensors, reset, self._convolve, self._cell)

    def step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool = False
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, D] from the state `tensors`, with `inplace` into them, with reset [B]."""
        weights = self._native_weights(x, tensors, reset)
        if weights is not None:
            state = self._native_state(x, tensors)
            y, after = native.step(x, reset, state, weights, self._native_options, inplace)
            return y, after[-len(self.state_shapes) :]
        convolve, cell = self._convolve_step, self._cell_step
        if inplace:
            convolve, cell = partial(convolve, inplace=True), partial(cell, inplace=True)
        y, new = self._run(x, tensors, reset, convolve, cell)
        if inplace and tensors is not None and new[0] is not tensors[0]:
            # under autocast the convolution worked on a copy in another dtype
            new = (tensors[0].copy_(new[0]), *new[1:])
        return y, new

    def _native_weights(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None
    ) -> native.Weights | None:
        """Return the weights for the whole block in C; None: each operation is torch's."""
        if not takes_native(self.backend, x, whole_block=True):
            return None
        ff_norm, ff = self.feed_forward_norm, self.feed_forward
        modules: tuple[nn.Module, ...] = (self.norm,)
        if ff is not None and ff_norm is not None:
            modules = (self.norm, ff_norm, ff, ff.up, ff.down)
        if not untouched(*modules):
            return None
        weights = native.Weights(
            self.norm.weight,
            self.conv_weight if self.conv_window else None,
            self.conv_bias if self.conv_window else None,
            self.input_weight,
            self.recurrent_weight,
            self.gate_bias,
            self.head_norm_weight,
            None if ff_norm is None else ff_norm.weight,
            None if ff is None else ff.up.weight,
            None if ff is None else ff.up.bias,
            None if ff is None else ff.down.weight,
            None if ff is None else ff.down.bias,
        )
        return weights if native.covers(x, reset, tensors, weights, self._native_options) else None

    def _native_state(self, x: Tensor, tensors: StateTensors | None) -> native.State | None:
        if tensors is None:
            return None
        window = () if self.conv_window else (x.new_empty(x.shape[0], 0, self.width),)
        return native.State(*window, *tensors)

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
        u = self.norm(x)
        conv_state: StateTensors = ()
        if self.conv_window:
            old = None if tensors is None else tensors[0].to(u.dtype)
            c, new = convolve(u, self.conv_weight, self.conv_bias, reset, old, activation="silu")
            conv_state = (new,)
        else:
            c = u
        gates = block_diagonal_linear(
            torch.cat([c, c, u, u], -1), self.input_weight.flatten(0, 1)
        ).view(*lead, 4, heads, -1)
        h, state = cell(
            gates,
            self.recurrent_weight,
            self.gate_bias,
            reset,
            None if tensors is None else tensors[-4:],
        )
        x = x + head_norm(h, self.head_norm_weight)
        if self.feed_forward is not None and self.feed_forward_norm is not None:
            x = x + self.feed_forward(self.feed_forward_norm(x))
        return x, (*conv_state, *state)
