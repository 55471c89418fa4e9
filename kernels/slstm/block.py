"""The sLSTM block as a function on tensors: everything around the cell, in operations of torch."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_rl.kernels import ablated
from xlstm_rl.kernels.dispatch import causal_conv1d, causal_conv1d_step, slstm, slstm_step
from xlstm_rl.kernels.layers import (
    block_diagonal_linear,
    gated_feed_forward,
    head_norm,
    layer_norm,
)

State = tuple[Tensor, ...]
Convolve = Callable[..., tuple[Tensor, Tensor]]
Cell = Callable[..., tuple[Tensor, State]]


class SLSTMBlockWeights(NamedTuple):
    """Of a block of width D, H heads of size S, W taps and hidden width F."""

    norm: Tensor
    """``[D]``."""
    conv: Tensor | None
    """``[D, W]``; ``None``: no convolution."""
    conv_bias: Tensor | None
    """``[D]``."""
    input: Tensor
    """``[4, H, S (from), S (to)]``, gates in the order i, f, z, o."""
    R: Tensor
    """``[4, H, S (from), S (to)]``."""
    b: Tensor
    """``[4, H, S]``."""
    head_norm: Tensor
    """``[D]``."""
    feed_forward_norm: Tensor | None
    """``[D]``; ``None``: no feed-forward."""
    up: Tensor | None
    """``[2 F, D]``: the gate, then what it is multiplied by."""
    up_bias: Tensor | None
    """``[2 F]``."""
    down: Tensor | None
    """``[D, F]``."""
    down_bias: Tensor | None
    """``[D]``."""


class SLSTMBlockOptions(NamedTuple):
    """What is not a weight."""

    num_heads: int
    activation: str = "gelu"
    """Of the gate of the feed-forward."""
    forget_gate: str = "sigmoid"
    backend: str = "auto"
    """Of the cell and the convolution."""
    input_gate: str = "exponential"
    normalizer: bool = True

    @property
    def is_ablated(self) -> bool:
        """Whether a part of the cell is taken away: then C does not run the block."""
        return not self.normalizer or self.input_gate != "exponential"


def slstm_block(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: SLSTMBlockWeights,
    options: SLSTMBlockOptions,
) -> tuple[Tensor, State]:
    """Run the block over x ``[B, T, D]`` with reset ``[B, T]``.

    Returns:
        ``[B, T, D]`` and the state: that of the convolution, if there is one, and h, c, n, m;
        without a normaliser h and c.
    """
    convolve = partial(causal_conv1d, backend=options.backend)
    return _run(x, reset, state, weights, options, convolve, _cell(options))


def slstm_block_step(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: SLSTMBlockWeights,
    options: SLSTMBlockOptions,
    inplace: bool = False,
) -> tuple[Tensor, State]:
    """Run one step of the block, x ``[B, D]``, with ``inplace`` into the given state."""
    gate, backend = options.forget_gate, options.backend
    convolve = partial(causal_conv1d_step, backend=backend, inplace=inplace)
    cell: Cell = partial(slstm_step, forget_gate=gate, backend=backend, inplace=inplace)
    if options.is_ablated:
        cell = partial(
            ablated.slstm_step,
            forget_gate=gate,
            input_gate=options.input_gate,
            normalizer=options.normalizer,
            inplace=inplace,
        )
    y, new = _run(x, reset, state, weights, options, convolve, cell)
    if inplace and state is not None and new[0] is not state[0]:
        # under autocast the convolution worked on a copy in another dtype
        new = (state[0].copy_(new[0]), *new[1:])
    return y, new


def slstm_block_gates(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: SLSTMBlockWeights,
    options: SLSTMBlockOptions,
) -> tuple[Tensor, Tensor]:
    """Return what the gates i and f are before their activations, each ``[B, T, H, S]``.

    Arguments are those of `slstm_block`. What the last output adds by R is in them.
    """
    convolve = partial(causal_conv1d, backend=options.backend)
    gates, conv_state = _cell_inputs(x, reset, state, weights, options, convolve)
    R, b = weights.R, weights.b
    before = None if state is None else state[len(conv_state) :]
    h, _ = _cell(options)(gates, R, b, reset, before)
    first = torch.zeros_like(h[:, :1]) if before is None else before[0].unsqueeze(1)
    last = torch.cat([first, h[:, :-1]], 1)
    if reset is not None:
        last = last.masked_fill(reset[..., None, None], 0.0)
    recurrent = torch.einsum("bths,ghsr->btghr", last, R[:2])
    i, f = (gates[:, :, :2] + recurrent + b[:2]).unbind(2)
    return i, f


def _cell(options: SLSTMBlockOptions) -> Cell:
    """The cell over a sequence."""
    if options.is_ablated:
        return partial(
            ablated.slstm,
            forget_gate=options.forget_gate,
            input_gate=options.input_gate,
            normalizer=options.normalizer,
        )
    return partial(slstm, forget_gate=options.forget_gate, backend=options.backend)


def _cell_inputs(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    w: SLSTMBlockWeights,
    options: SLSTMBlockOptions,
    convolve: Convolve,
) -> tuple[Tensor, State]:
    """Do what comes before the cell: its input and the state of the convolution."""
    lead, heads = x.shape[:-1], options.num_heads
    u = layer_norm(x, w.norm)
    conv_state: State = ()
    if w.conv is not None:
        old = None if state is None else state[0].to(u.dtype)
        c, new = convolve(u, w.conv, w.conv_bias, reset, old, activation="silu")
        conv_state = (new,)
    else:
        c = u
    gates = block_diagonal_linear(torch.cat([c, c, u, u], -1), w.input.flatten(0, 1))
    return gates.view(*lead, 4, heads, x.shape[-1] // heads), conv_state


def _run(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    w: SLSTMBlockWeights,
    options: SLSTMBlockOptions,
    convolve: Convolve,
    cell: Cell,
) -> tuple[Tensor, State]:
    """Do what a sequence and a step have in common: everything but the two kernels."""
    gates, conv_state = _cell_inputs(x, reset, state, w, options, convolve)
    h, after = cell(gates, w.R, w.b, reset, None if state is None else state[len(conv_state) :])
    x = x + head_norm(h, w.head_norm)
    if w.up is not None and w.down is not None:
        v = layer_norm(x, w.feed_forward_norm)
        x = x + gated_feed_forward(v, w.up, w.up_bias, w.down, w.down_bias, options.activation)
    return x, (*conv_state, *after)
