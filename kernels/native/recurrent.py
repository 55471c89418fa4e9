"""A layer of an LSTM or a GRU in C: sequences with resets inside, and steps."""

import functools
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, wants_gradient
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.arguments import bytes_for, contiguous, pointer, run, struct
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.workspace import lend_tensor, scratch
from xlstm_rl.kernels.recurrent.reference import State, Weights, sequence

_NUM_TENSORS = 8  # x, reset, h, c (of an LSTM), the weights
_SIZES = "B T D H gru workers stride"
_FORWARD = "x w_ih w_hh b_ih b_hh reset h0 c0 y hT cT saved work"
Forward = struct("Forward", _SIZES, _FORWARD)
Backward = struct(
    "Backward",
    _SIZES,
    f"{_FORWARD} dy dhT dcT dx dw_ih dw_hh db_ih db_hh dh0 dc0 backward_work",
)


def covers(x: Tensor, reset: Tensor | None, state: State, weights: Weights) -> bool:
    """Whether all tensors are what C takes them for, x ``[B, T, D]`` or ``[B, D]`` float32.

    ``state`` is ``[B, H]``; its rows may lie apart, their numbers side by side.
    """
    H, (w_ih, w_hh, b_ih, b_hh) = weights[1].shape[1], weights
    G = (4 if len(state) == 2 else 3) * H
    return (
        w_ih.shape == (G, x.shape[-1])
        and w_hh.shape == (G, H)
        and b_ih.shape == b_hh.shape == (G,)
        and (
            reset is None
            or (reset.dtype is torch.bool and reset.is_cpu and reset.shape == x.shape[:-1])
        )
        and all(s.shape == (x.shape[0], H) for s in state)
        and all(t.dtype is torch.float32 and t.is_cpu for t in (*state, *weights))
    )


def recurrent_layer(
    x: Tensor, reset: Tensor | None, state: State, weights: Weights
) -> tuple[Tensor, State]:
    """Do what `sequence` does."""
    h, c = state if len(state) == 2 else (state[0], None)
    inputs = (x, reset, h, c, *weights)
    if wants_gradient(*inputs):
        y, *after = _Layer.apply(*inputs)  # type: ignore[no-untyped-call]
    else:
        y, *after = _forward(inputs, False)[0]
    return y, tuple(s for s in after if s is not None)


def recurrent_step(
    x: Tensor, reset: Tensor | None, state: State, weights: Weights, inplace: bool
) -> tuple[Tensor, State]:
    """One step without gradients, x ``[B, D]``, with ``inplace`` into rows of the given state."""
    h, c = state if len(state) == 2 else (state[0], None)
    reset = None if reset is None else reset[:, None]
    strides = {s.stride() for s in state}
    into = state if inplace and len(strides) == 1 and next(iter(strides))[1] == 1 else None
    outputs, _ = _forward((x[:, None], reset, h, c, *weights), False, into)
    y, *after = outputs
    assert y is not None
    if into is not None:
        note_overwritten(into)
        return y[:, 0], into
    new = tuple([s for s in after if s is not None])
    if inplace:
        new = tuple([s.copy_(a) for s, a in zip(state, new, strict=True)])
    return y[:, 0], new


def _forward(
    inputs: tuple[Any, ...], save: bool, into: State | None = None
) -> tuple[tuple[Tensor | None, ...], Tensor]:
    """Outputs, the state behind them (of a GRU no c), in ``into`` if given; what is saved."""
    x, reset, *weights = (contiguous(t) for t in (*inputs[:2], *inputs[4:]))
    h, c = inputs[2:4] if into is not None else (contiguous(s) for s in inputs[2:4])
    assert x is not None and h is not None
    (B, T, D), H = x.shape, h.shape[1]
    sizes = (B, T, D, H, int(c is None), num_threads(), h.stride(0) if B > 1 else H)
    y = x.new_empty(B, T, H)
    after = into or tuple(torch.empty_like(s) for s in (h, c) if s is not None)
    saved = lend_tensor(bytes_of("saved_bytes", sizes)) if save else x.new_empty(0)
    states = (*after, None)[:2]
    given = (x, *weights, reset, h, c, y, *states, saved if save else None)
    with scratch(bytes_of("work_bytes", sizes, save)) as work:
        run("xl_recurrent_forward", Forward(*sizes, *map(pointer, given), work))
    return (y, *states), saved


def _backward(grads: Grads, y: Tensor, saved: Tensor, inputs: tuple[Any, ...]) -> Grads:
    """The gradients of all inputs."""
    held: list[Any] = [contiguous(t) for t in inputs]
    x, reset, h, c, *weights = held
    B, T, D = x.shape
    H = h.shape[1]
    sizes = (B, T, D, H, int(c is None), num_threads(), H)
    found = [None if t is None else torch.empty_like(t) for t in (x, h, c, *weights)]
    dx, dh, dc, *dweights = found
    forward = (x, *weights, reset, h, c, y.contiguous(), None, None, saved, None)
    pointers = (*forward, *(contiguous(g) for g in grads), dx, *dweights, dh, dc)
    with scratch(bytes_of("backward_work_bytes", sizes)) as work:
        arguments = Backward(*sizes, *map(pointer, pointers), work)
        run("xl_recurrent_backward", arguments)
    return dx, None, dh, dc, *dweights


@functools.lru_cache(1024)
def bytes_of(name: str, sizes: tuple[int, ...], saving: bool = True) -> int:
    """What a call works in or saves."""
    return bytes_for(f"xl_recurrent_{name}", Forward(*sizes, saved=int(saving) or None))


def _equations(*inputs: Any) -> tuple[Tensor | None, ...]:
    x, reset, h, c, w_ih, w_hh, b_ih, b_hh = inputs
    y, after = sequence(x, reset, (h,) if c is None else (h, c), (w_ih, w_hh, b_ih, b_hh))
    return y, *(*after, None)[:2]


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor | None, ...]:
        outputs, saved = _forward(inputs, True)
        keep(ctx, inputs, _NUM_TENSORS, outputs[0], saved)
        return outputs

    @staticmethod
    @differentiable(_equations, _NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, rest: Any, *grads: Tensor | None) -> Grads:
        y, saved = rest
        return _backward(grads, y, saved, inputs)
