"""The causal convolution in the library: sequences, forward and backward, and steps."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, wants_gradient
from xlstm_rl.kernels.conv1d import reference
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.arguments import bytes_for, contiguous, pointer, run, struct
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.workspace import scratch

_NUM_TENSORS = 5
_Arguments = struct(
    "conv1d_arguments",
    "B T C W silu workers",
    "x weight bias reset state y state_1 dy dstate_1 dx dweight dbias dstate work",
)


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """The whole sequence, activation included."""
    inputs = (x, weight, bias, reset, state, activation)
    if wants_gradient(*inputs):
        y, end = _Convolution.apply(*inputs)  # type: ignore[no-untyped-call]
        return y, end
    return _forward(inputs)


def causal_conv1d_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
    inplace: bool,
) -> tuple[Tensor, Tensor]:
    """One step, activation included; with gradients the reference's, differentiated by autograd."""
    if wants_gradient(x, weight, bias, state):
        y, end = reference.causal_conv1d_step(x, weight, bias, reset, state)
        return (F.silu(y) if activation == "silu" else y), end
    held = [contiguous(t) for t in (x, weight, bias, reset, state)]
    (B, C), W = x.shape, weight.shape[1]
    y, after = x.new_empty(B, C), x.new_empty(B, W - 1, C)
    into = inplace and state is not None and held[4] is state
    if into and state is not None:
        after = state
    sizes = (B, 1, C, W, activation == "silu", 1)
    _run("xl_conv1d_step", _Arguments(*sizes, *map(pointer, (*held, y, after))))
    if into:
        note_overwritten((after,))
    elif inplace and state is not None:
        after = state.copy_(after)
    return y, after


def _equations(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor]:
    y, end = reference.causal_conv1d(x, weight, bias, reset, state)
    return (F.silu(y) if activation == "silu" else y), end


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        keep(ctx, inputs, _NUM_TENSORS)
        return _forward(inputs)

    @staticmethod
    @differentiable(_equations, _NUM_TENSORS)
    def backward(ctx: Any, inputs: Any, rest: Grads, *grads: Tensor | None) -> Grads:
        sizes, held = _sizes((*inputs, *ctx.options))
        given = map(contiguous, grads)
        make = torch.empty_like if sizes[0] else torch.zeros_like
        dx, dweight, dbias, _, dstate = (None if t is None else make(t) for t in held)
        tensors = (*held, None, None, *given, dx, dweight, dbias, dstate)
        _run("xl_conv1d_backward", _Arguments(*sizes, *map(pointer, tensors)))
        return dx, dweight, dbias, None, dstate, None


def _forward(inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    sizes, held = _sizes(inputs)
    B, T, C, W = sizes[:4]
    x = inputs[0]
    y, end = x.new_empty(B, T, C), x.new_empty(B, W - 1, C)
    _run("xl_conv1d_forward", _Arguments(*sizes, *map(pointer, (*held, y, end))))
    return y, end


def _sizes(inputs: tuple[Any, ...]) -> tuple[tuple[int, ...], list[Any]]:
    """The sizes as C takes them, and the contiguous tensors that have to outlive the call."""
    held = [contiguous(t) for t in inputs[:_NUM_TENSORS]]
    sizes = (*inputs[0].shape, inputs[1].shape[1], inputs[-1] == "silu", num_threads())
    return sizes, held


def _run(name: str, arguments: Any) -> None:
    with scratch(bytes_for("xl_conv1d_bytes", arguments)) as work:
        arguments.work = work
        run(name, arguments)
