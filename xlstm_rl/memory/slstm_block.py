"""The post-up-projection block around an sLSTM cell."""

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.slstm_block import run_slstm_block
from xlstm_rl.kernels.native.slstm_block_step import SLSTMBlockStep
from xlstm_rl.kernels.slstm.block import (
    SLSTMBlockOptions,
    SLSTMBlockWeights,
    slstm_block,
    slstm_block_gates,
    slstm_block_step,
)
from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.config import XLSTMConfig
from xlstm_rl.memory.gates import Gates, log_gates
from xlstm_rl.memory.layers import (
    GatedFeedForward,
    LayerNorm,
    conv_init_,
    parameter,
    small_init_,
)


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
        self._native_step = SLSTMBlockStep()
        self._options = SLSTMBlockOptions(
            *(heads, config.feedforward_activation, config.forget_gate, config.backend),
            *(config.input_gate, config.normalizer),
        )

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
        self.reset_parameters()

        self.state_shapes: dict[str, tuple[int, ...]] = {}
        if window:
            self.state_shapes["conv"] = (window - 1, width)
        cell = ("h", "c", "n", "m") if config.normalizer else ("h", "c")
        self.state_shapes |= {name: (heads, head) for name in cell}

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
        weights, options = self._weights(), self._options
        if takes_native(options.backend, x, whole_block=True):
            found = run_slstm_block(x, reset, tensors, weights, options)
            if found is not None:
                return found
        return slstm_block(x, reset, tensors, weights, options)

    def step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool = False
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, D] from the state `tensors`, with `inplace` into them, with reset [B]."""
        weights, options = self._weights(), self._options
        if takes_native(options.backend, x, whole_block=True):
            found = self._native_step(x, reset, tensors, weights, options, inplace)
            if found is not None:
                return found
        return slstm_block_step(x, reset, tensors, weights, options, inplace)

    def gates_over(self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None) -> Gates:
        """Return the gates over x [B, T, D]."""
        i, f = slstm_block_gates(x, reset, tensors, self._weights(), self._options)
        return log_gates(i, f, self._options)

    def as_function(self) -> tuple[SLSTMBlockWeights, SLSTMBlockOptions]:
        """Return what the functions of this block in the kernels take beside input and state."""
        return self._weights(), self._options

    def _weights(self) -> SLSTMBlockWeights:
        of, conv = self._modules, self.conv_window > 0
        ff_norm, ff = of.get("feed_forward_norm"), of.get("feed_forward")
        up, down = (None, None) if ff is None else (ff._modules["up"], ff._modules["down"])
        return SLSTMBlockWeights(
            parameter(of["norm"], "weight"),
            parameter(self, "conv_weight") if conv else None,
            parameter(self, "conv_bias") if conv else None,
            parameter(self, "input_weight"),
            parameter(self, "recurrent_weight"),
            parameter(self, "gate_bias"),
            parameter(self, "head_norm_weight"),
            None if ff_norm is None else parameter(ff_norm, "weight"),
            None if up is None else parameter(up, "weight"),
            None if up is None else parameter(up, "bias"),
            None if down is None else parameter(down, "weight"),
            None if down is None else parameter(down, "bias"),
        )
