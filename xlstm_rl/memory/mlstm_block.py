"""The pre-up-projection block around an mLSTM cell."""

from typing import Any

import torch
from torch import Tensor, nn

from xlstm_rl.kernels.mlstm.block import (
    MLSTMBlockOptions,
    MLSTMBlockWeights,
    mlstm_block,
    mlstm_block_gates,
    mlstm_block_step,
)
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.mlstm_block import run_mlstm_block
from xlstm_rl.kernels.native.mlstm_block_step import MLSTMBlockStep
from xlstm_rl.memory.base import StateTensors
from xlstm_rl.memory.config import XLSTMConfig
from xlstm_rl.memory.gates import Gates, log_gates
from xlstm_rl.memory.layers import LayerNorm, conv_init_, output_init_, small_init_


class MLSTMBlock(nn.Module):
    """A residual block [..., D] -> [..., D] around an mLSTM cell (Beck et al. 2024, figure 11).

    x is normed, projected up and split into u and a gate z; u passes a causal convolution and
    SiLU to give c; q and k are block-diagonal projections of c, v of u; the gates i and f are
    linear in [q, k, v]; `(norm(h) + skip * c) * silu(z)` is projected down and added to x.
    """

    qkv_bias: nn.Parameter | None

    def __init__(self, config: XLSTMConfig, num_blocks: int) -> None:
        super().__init__()
        width, inner, heads = config.width, config.inner_width, config.num_heads
        self.width, self.num_blocks, self.num_heads = width, num_blocks, heads
        self.conv_window = config.conv1d_kernel_size
        self._options = MLSTMBlockOptions(
            *(heads, config.forget_gate, config.chunk_size, config.backend),
            *(config.input_gate, config.normalizer),
        )

        self._native_step = MLSTMBlockStep()
        self.norm = LayerNorm(width)
        self.up = nn.Linear(width, 2 * inner, bias=config.bias)
        if self.conv_window:
            self.conv_weight = nn.Parameter(torch.empty(inner, self.conv_window))
            self.conv_bias = nn.Parameter(torch.empty(inner))
        size = config.qkv_block_size
        # q, k and v in one: [3 * blocks, from, to]
        self.qkv_weight = nn.Parameter(torch.empty(3 * inner // size, size, size))
        qkv_bias = nn.Parameter(torch.empty(3 * inner)) if config.bias else None
        self.register_parameter("qkv_bias", qkv_bias)
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
        self.state_shapes["C"] = (heads, head, head)
        if config.normalizer:
            self.state_shapes |= {"n": (heads, head), "m": (heads,)}

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
        weights, options = self._weights(), self._options
        if takes_native(options.backend, x, whole_block=True):
            found = run_mlstm_block(x, reset, tensors, weights, options)
            if found is not None:
                return found
        return mlstm_block(x, reset, tensors, weights, options)

    def step(
        self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None, inplace: bool = False
    ) -> tuple[Tensor, StateTensors]:
        """Run x [B, D] from the state `tensors`, with `inplace` into them, with reset [B]."""
        weights, options = self._weights(), self._options
        if takes_native(options.backend, x, whole_block=True):
            found = self._native_step(x, reset, tensors, weights, options, inplace)
            if found is not None:
                return found
        return mlstm_block_step(x, reset, tensors, weights, options, inplace)

    def gates_over(self, x: Tensor, tensors: StateTensors | None, reset: Tensor | None) -> Gates:
        """Return the gates over x [B, T, D]."""
        i, f = mlstm_block_gates(x, reset, tensors, self._weights(), self._options)
        return log_gates(i, f, self._options)

    def as_function(self) -> tuple[MLSTMBlockWeights, MLSTMBlockOptions]:
        """Return what the functions of this block in the kernels take beside input and state."""
        return self._weights(), self._options

    def _weights(self) -> MLSTMBlockWeights:
        conv = self.conv_window > 0
        own, inner = self._parameters, self._modules
        try:  # a module looks long for its attributes: 10 us of every step
            norm, up, down = (inner[n]._parameters for n in ("norm", "up", "down"))  # type: ignore[union-attr]
            found: Any = (
                *(norm["weight"], up["weight"], up["bias"]),
                *((own["conv_weight"], own["conv_bias"]) if conv else (None, None)),
                *(own["qkv_weight"], own["qkv_bias"], own["gate_weight"], own["gate_bias"]),
                *(own["head_norm_weight"], own["skip"], down["weight"], down["bias"]),
            )
            return MLSTMBlockWeights(*found)  # torch 2.8 does not compile `_make`
        except KeyError:  # one is made of others: parametrized, or pruned
            return MLSTMBlockWeights(
                norm=self.norm.weight,
                up=self.up.weight,
                up_bias=self.up.bias,
                conv=self.conv_weight if conv else None,
                conv_bias=self.conv_bias if conv else None,
                qkv=self.qkv_weight,
                qkv_bias=self.qkv_bias,
                gate=self.gate_weight,
                gate_bias=self.gate_bias,
                head_norm=self.head_norm_weight,
                skip=self.skip,
                down=self.down.weight,
                down_bias=self.down.bias,
            )
