"""The mLSTM block as a function on tensors: everything around the cell, in operations of torch."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels import ablated
from xlstm_rl.kernels.dispatch import causal_conv1d, causal_conv1d_step, mlstm, mlstm_step
from xlstm_rl.kernels.layers import block_diagonal_linear, head_norm, layer_norm

State = tuple[Tensor, ...]
Convolve = Callable[..., tuple[Tensor, Tensor]]
Cell = Callable[..., tuple[Tensor, State]]


class MLSTMBlockWeights(NamedTuple):
    """Of a block of width D, inner width I, H heads, W taps and q, k, v blocks of size S."""

    norm: Tensor
    """``[D]``."""
    up: Tensor
    """``[2 I, D]``: u, then the gate z."""
    up_bias: Tensor | None
    """``[2 I]``."""
    conv: Tensor | None
    """``[I, W]``; ``None``: no convolution."""
    conv_bias: Tensor | None
    """``[I]``."""
    qkv: Tensor
    """``[3 I / S, S (from), S (to)]``: q, k, v in one."""
    qkv_bias: Tensor | None
    """``[3 I]``."""
    gate: Tensor
    """``[2 H, 3 I]``: i, then f."""
    gate_bias: Tensor
    """``[2 H]``."""
    head_norm: Tensor
    """``[I]``."""
    skip: Tensor
    """``[I]``."""
    down: Tensor
    """``[D, I]``."""
    down_bias: Tensor | None
    """``[D]``."""


class MLSTMBlockOptions(NamedTuple):
    """What is not a weight."""

    num_heads: int
    forget_gate: str = "sigmoid"
    chunk_size: int = 64
    backend: str = "auto"
    """Of the cell and the convolution."""
    input_gate: str = "exponential"
    normalizer: bool = True

    @property
    def is_ablated(self) -> bool:
        """Whether a part of the cell is taken away: then C does not run the block."""
        return not self.normalizer or self.input_gate != "exponential"


def mlstm_block(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: MLSTMBlockWeights,
    options: MLSTMBlockOptions,
) -> tuple[Tensor, State]:
    """Run the block over x ``[B, T, D]`` with reset ``[B, T]``.

    Returns:
        ``[B, T, D]`` and the state: that of the convolution, if there is one, and C, n, m;
        without a normaliser C alone.
    """
    gate, backend = options.forget_gate, options.backend
    convolve = partial(causal_conv1d, backend=backend)
    cell: Cell = partial(mlstm, chunk_size=options.chunk_size, forget_gate=gate, backend=backend)
    if options.is_ablated:
        cell = partial(
            ablated.mlstm,
            chunk_size=options.chunk_size,
            forget_gate=gate,
            input_gate=options.input_gate,
            normalizer=options.normalizer,
            backend=backend,
        )
    return _run(x, reset, state, weights, options, convolve, cell)


def mlstm_block_step(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: MLSTMBlockWeights,
    options: MLSTMBlockOptions,
    inplace: bool = False,
) -> tuple[Tensor, State]:
    """Run one step of the block, x ``[B, D]``, with ``inplace`` into the given state."""
    gate, backend = options.forget_gate, options.backend
    convolve = partial(causal_conv1d_step, backend=backend, inplace=inplace)
    cell: Cell = partial(mlstm_step, forget_gate=gate, backend=backend, inplace=inplace)
    if options.is_ablated:
        cell = partial(
            ablated.mlstm_step,
            forget_gate=gate,
            input_gate=options.input_gate,
            normalizer=options.normalizer,
            backend=backend,
            inplace=inplace,
        )
    y, new = _run(x, reset, state, weights, options, convolve, cell)
    if inplace and state is not None and new[0] is not state[0]:
        # under autocast the convolution worked on a copy in another dtype
        new = (state[0].copy_(new[0]), *new[1:])
    return y, new


def mlstm_block_gates(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: MLSTMBlockWeights,
    options: MLSTMBlockOptions,
) -> tuple[Tensor, Tensor]:
    """Return what the gates i and f are before their activations, each ``[B, T, H]``.

    Arguments are those of `mlstm_block`.
    """
    convolve = partial(causal_conv1d, backend=options.backend)
    return _cell_inputs(x, reset, state, weights, options, convolve).gates


class _CellInputs(NamedTuple):
    qkv: tuple[Tensor, ...]
    gates: tuple[Tensor, Tensor]
    convolved: Tensor
    output_gate: Tensor
    conv_state: State


def _cell_inputs(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    w: MLSTMBlockWeights,
    options: MLSTMBlockOptions,
    convolve: Convolve,
) -> _CellInputs:
    """Do what comes before the cell."""
    lead, heads = x.shape[:-1], options.num_heads
    u, z = F.linear(layer_norm(x, w.norm), w.up, w.up_bias).chunk(2, -1)
    conv_state: State = ()
    if w.conv is not None:
        old = None if state is None else state[0].to(u.dtype)
        c, new = convolve(u, w.conv, w.conv_bias, reset, old, activation="silu")
        conv_state = (new,)
    else:
        c = u
    qkv = block_diagonal_linear(torch.cat([c, c, u], -1), w.qkv)
    if w.qkv_bias is not None:
        qkv = qkv + w.qkv_bias.to(qkv.dtype)  # differs under autocast
    i, f = F.linear(qkv, w.gate, w.gate_bias).chunk(2, -1)
    # written out: of a batch of no rows -1 could be any size
    qkv = qkv.view(*lead, 3, heads, u.shape[-1] // heads)
    return _CellInputs(qkv.unbind(-3), (i, f), c, z, conv_state)


def _run(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    w: MLSTMBlockWeights,
    options: MLSTMBlockOptions,
    convolve: Convolve,
    cell: Cell,
) -> tuple[Tensor, State]:
    """Do what a sequence and a step have in common: everything but the two kernels."""
    qkv, gates, c, z, conv_state = _cell_inputs(x, reset, state, w, options, convolve)
    h, after = cell(*qkv, *gates, reset, None if state is None else state[len(conv_state) :])
    h = torch.addcmul(head_norm(h, w.head_norm), w.skip, c) * F.silu(z)
    return x + F.linear(h, w.down, w.down_bias), (*conv_state, *after)
