"""The convolution as one differentiable operation: eager, and as ops for the compiler.

Eager code calls an ``autograd.Function``, which costs less than an op. While ``torch.compile`` or
export is tracing, the same functions are called as ``torch.library`` ops, which those can see.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.autograd import (
    Grads,
    differentiable,
    keep,
    refuse_forward_mode,
    wants_gradient,
)
from xlstm_rl.kernels.conv1d import reference
from xlstm_rl.kernels.conv1d.triton import run
from xlstm_rl.kernels.inplace import has_own_memory, note_overwritten

_NUM_TENSORS = 5


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """The whole sequence; see `xlstm_rl.kernels.causal_conv1d`."""
    inputs = (x, weight, bias, reset, state, activation)
    if torch.compiler.is_compiling():
        y, end = conv1d_op(*inputs)
    elif wants_gradient(x, weight, bias, state):
        y, end = _Conv1d.apply(*inputs)
    else:
        y, end = run.forward(*inputs)
    return y, end


def causal_conv1d_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
    inplace: bool,
) -> tuple[Tensor, Tensor]:
    """One step; see `xlstm_rl.kernels.causal_conv1d_step`."""
    if wants_gradient(x, weight, bias, state):  # a sequence of one step has its gradients
        r = None if reset is None else reset[:, None]
        y, end = causal_conv1d(x[:, None], weight, bias, r, state, activation)
        return y.squeeze(1), end
    compiling = torch.compiler.is_compiling()
    if inplace and state is not None:
        inplace_step = conv1d_step_inplace_op if compiling else _step_inplace
        return inplace_step(x, weight, bias, reset, state, activation), state
    step = conv1d_step_op if compiling else run.step
    y, end = step(x, weight, bias, reset, state, activation)
    return y, end


def _equations(*inputs: Any) -> tuple[Tensor, ...]:
    *tensors, activation = inputs
    y, end = reference.causal_conv1d(*tensors)
    return F.silu(y) if activation == "silu" else y, end


class _Conv1d(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        _remember(ctx, inputs, ())
        return run.forward(*inputs)

    @staticmethod
    @differentiable(_equations, _NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, _: Grads, *grads: Tensor | None) -> Grads:
        return _recall(ctx, inputs, grads, run.backward)


@torch.library.custom_op("xlstm_rl::conv1d_triton", mutates_args=())
@refuse_forward_mode
def conv1d_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """``y [B, T, C]`` and the state after the last step."""
    return run.forward(x, weight, bias, reset, state, activation)


@conv1d_op.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(len(x), weight.shape[1] - 1, x.shape[-1])


@torch.library.custom_op("xlstm_rl::conv1d_triton_backward", mutates_args=())
def conv1d_backward_op(
    dy: Tensor | None,
    dend: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> list[Tensor]:
    """The gradients of x, of weight and, where they were given, of bias and state."""
    return run.backward(dy, dend, x, weight, bias, reset, state, activation)


@conv1d_backward_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    x, weight, bias, _, state, _ = inputs[2:]
    return [g.new_empty(g.shape) for g in (x, weight, bias, state) if g is not None]


@torch.library.custom_op("xlstm_rl::conv1d_triton_step", mutates_args=())
@refuse_forward_mode
def conv1d_step_op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """``y [B, C]`` and the state after the step."""
    return run.step(x, weight, bias, reset, state, activation)


@conv1d_step_op.register_fake
def _(x: Tensor, weight: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(len(x), weight.shape[1] - 1, x.shape[-1])


def _step_inplace(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor,
    activation: str,
) -> Tensor:
    """``y [B, C]``; the state is overwritten."""
    if not has_own_memory(state):
        y, end = run.step(x, weight, bias, reset, state, activation)
        state.copy_(end)  # refuses, and says why
        return y
    y, _ = run.step(x, weight, bias, reset, state, activation, end=state)
    note_overwritten([state])
    return y


conv1d_step_inplace_op = torch.library.custom_op(
    "xlstm_rl::conv1d_triton_step_inplace",
    refuse_forward_mode(_step_inplace),
    mutates_args=("state",),
)


@conv1d_step_inplace_op.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(x.shape)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep the inputs alone."""
    keep(ctx, inputs, _NUM_TENSORS)


def _recall(ctx: Any, inputs: Grads, grads: Grads, backward: Any) -> Grads:
    _, _, bias, _, state = inputs
    dx, dweight, *rest = backward(*grads, *inputs, *ctx.options)
    dbias = None if bias is None else rest.pop(0)
    dstate = None if state is None else rest.pop(0)
    return dx, dweight, dbias, None, dstate, None


@differentiable(_equations, _NUM_TENSORS)
def _backward_op(ctx: Any, inputs: Grads, _: Grads, *grads: Tensor | None) -> Grads:
    return _recall(ctx, inputs, grads, conv1d_backward_op)


conv1d_op.register_autograd(_backward_op, setup_context=_remember)
