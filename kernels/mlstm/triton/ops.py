"""The Triton mLSTM as differentiable operations: eager, and as ops for the compiler."""

from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import (
    Grads,
    differentiable,
    keep,
    refuse_forward_mode,
    wants_gradient,
)
from xlstm_rl.kernels.mlstm import reference
from xlstm_rl.kernels.mlstm.ops import GRADS, INPUTS, NUM_TENSORS, OPTIONS, equations
from xlstm_rl.kernels.mlstm.triton.chunkwise import (
    Saved,
    choose_layout,
    chunkwise_backward,
    chunkwise_forward,
)
from xlstm_rl.kernels.mlstm.triton.step import step_forward
from xlstm_rl.kernels.mlstm.triton.step_backward import step_backward
from xlstm_rl.kernels.schemas import schema
from xlstm_rl.kernels.types import MLSTMState

_NUM_OUTPUTS = 4
_STEP_INPUTS, _STEP_OPTION = INPUTS.replace("_0", ""), "str forget_gate"


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: MLSTMState | None,
    chunk_size: int,
    forget_gate: str,
) -> tuple[Tensor, MLSTMState]:
    """The whole sequence by chunks; see `xlstm_rl.kernels.mlstm`."""
    inputs = (q, k, v, i, f, reset, *(state or (None,) * 3), chunk_size, forget_gate)
    if torch.compiler.is_compiling():
        h, C, n, m = chunkwise_op(*inputs)[:_NUM_OUTPUTS]
    elif wants_gradient(*inputs):
        h, C, n, m = _Chunkwise.apply(*inputs)
    else:
        h, C, n, m, _ = chunkwise_forward(*inputs)
    return h, (C, n, m)


def mlstm_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: MLSTMState | None,
    forget_gate: str,
    inplace: bool,
) -> tuple[Tensor, MLSTMState]:
    """One step; see `xlstm_rl.kernels.mlstm_step`."""
    inputs = (q, k, v, i, f, reset, *(state or (None,) * 3), forget_gate)
    if torch.compiler.is_compiling():
        h, C, n, m = step_op(*inputs)
        if inplace and state is not None:
            C, n, m = (s.copy_(a) for s, a in zip(state, (C, n, m), strict=True))
    elif wants_gradient(*inputs):
        h, C, n, m = _Step.apply(*inputs)
    else:
        return step_forward(q, k, v, i, f, reset, state, forget_gate, inplace)
    return h, (C, n, m)


class _Chunkwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        *outputs, saved = chunkwise_forward(*inputs)
        _keep_chunkwise(ctx, inputs, (*outputs, *saved))
        return tuple(outputs)

    @staticmethod
    @differentiable(equations, NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, saved: Grads, *grads: Tensor | None) -> Grads:
        return _run_chunkwise(ctx, inputs, saved, grads, chunkwise_backward_tensors)


def _step_equations(*inputs: Any) -> tuple[Tensor, ...]:
    *tensors, C, n, m, forget_gate = inputs
    state = None if C is None else (C, n, m)
    h, after = reference.mlstm_step(*(*tensors, state, forget_gate))
    return h, *after


class _Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        keep(ctx, inputs, NUM_TENSORS)
        return _step(*inputs)

    @staticmethod
    @differentiable(_step_equations, NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, _: Grads, *grads: Tensor | None) -> Grads:
        return _run_step(ctx, inputs, grads, step_backward_tensors)


@torch.library.custom_op(
    "xlstm_rl::mlstm_triton", mutates_args=(), schema=schema(INPUTS, OPTIONS, outputs=7)
)
@refuse_forward_mode
def chunkwise_op(*inputs: Any) -> tuple[Tensor, ...]:
    """``h``, the final C, n, m and the three tensors of `Saved`."""
    *outputs, saved = chunkwise_forward(*inputs)
    return *outputs, *saved


@chunkwise_op.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    q, _, v, *_, chunk_size, _ = inputs
    (B, T, H, K), V = q.shape, v.shape[-1]
    N = choose_layout(q, v, chunk_size).N
    shapes = ((B, H, K, V), (B, H, K), (B, H), (N - 1, B * H, K, V), (N - 1, B * H, K), (B * H, T))
    new = (q.new_empty(shape, dtype=torch.float32) for shape in shapes)
    return v.new_empty((B, T, H, V)), *new


@torch.library.custom_op(
    "xlstm_rl::mlstm_triton_backward",
    mutates_args=(),
    schema=schema(GRADS, INPUTS, "Tensor[] saved", OPTIONS),
)
def chunkwise_backward_op(*inputs: Any) -> list[Tensor]:
    """The gradients of q, k, v, i, f and, if there was a state, of C, n, m."""
    return chunkwise_backward_tensors(*inputs)


@chunkwise_backward_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    return _empty_grads(inputs[_NUM_OUTPUTS:])


def chunkwise_backward_tensors(*inputs: Any) -> list[Tensor]:
    """What `chunkwise_backward_op` does, without the op; `saved` is led by C_T and n_T."""
    *tensors, (C_T, n_T, *saved), chunk_size, forget_gate = inputs
    arguments = (*tensors, C_T, n_T, Saved(*saved), chunk_size, forget_gate)
    return chunkwise_backward(*arguments)


@torch.library.custom_op(
    "xlstm_rl::mlstm_step_triton",
    mutates_args=(),
    schema=schema(_STEP_INPUTS, _STEP_OPTION, outputs=4),
)
@refuse_forward_mode
def step_op(*inputs: Any) -> tuple[Tensor, ...]:
    """``h`` and the C, n, m after the step."""
    return _step(*inputs)


@step_op.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    q, _, v, *_ = inputs
    (B, H, K), V = q.shape, v.shape[-1]
    shapes = (B, H, K, V), (B, H, K), (B, H)
    new = (q.new_empty(shape, dtype=torch.float32) for shape in shapes)
    return v.new_empty((B, H, V)), *new


@torch.library.custom_op(
    "xlstm_rl::mlstm_step_triton_backward",
    mutates_args=(),
    schema=schema(GRADS, _STEP_INPUTS, _STEP_OPTION),
)
def step_backward_op(*inputs: Any) -> list[Tensor]:
    """The gradients of q, k, v, i, f and, if there was a state, of C, n, m."""
    return step_backward_tensors(*inputs)


@step_backward_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    return _empty_grads(inputs[_NUM_OUTPUTS:])


def step_backward_tensors(*inputs: Any) -> list[Tensor]:
    """What `step_backward_op` does, without the op."""
    dh, dC, dn, dm, *tensors, C, n, m, forget_gate = inputs
    state = None if C is None else (C, n, m)
    arguments = ((dh, dC, dn, dm), *tensors, state, forget_gate)
    return step_backward(*arguments)


def _step(*inputs: Any) -> tuple[Tensor, ...]:
    q, k, v, i, f, reset, C, n, m, forget_gate = inputs
    state = None if C is None else (C, n, m)
    h, after = step_forward(q, k, v, i, f, reset, state, forget_gate, inplace=False)
    return h, *after


def _empty_grads(inputs: tuple[Any, ...]) -> list[Tensor]:
    """Of q, k, v, i, f and the states among ``inputs``, which q leads and the reset parts."""
    grads = [x.new_empty(x.shape) for x in inputs[:5]]
    state = (s for s in inputs[6:9] if s is not None)
    return grads + [s.new_empty(s.shape, dtype=torch.float32) for s in state]


def _keep_chunkwise(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Keep the inputs, the final C and n, and what `Saved` names: nothing else is read."""
    keep(ctx, inputs, NUM_TENSORS, *output[1:3], *output[_NUM_OUTPUTS:])


def _run_chunkwise(ctx: Any, inputs: Grads, saved: Grads, grads: Grads, run: Any) -> Grads:
    outs = run(*grads[:_NUM_OUTPUTS], *inputs, list(saved), *ctx.options)
    return *_in_place_of(inputs, outs), None, None


def _keep_step(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    keep(ctx, inputs, NUM_TENSORS)


def _run_step(ctx: Any, inputs: Grads, grads: Grads, run: Any) -> Grads:
    return *_in_place_of(inputs, run(*grads, *inputs, *ctx.options)), None


def _in_place_of(inputs: tuple[Tensor | None, ...], grads: list[Tensor]) -> Grads:
    """Gradients in the order and dtypes of q, k, v, i, f, reset, C, n, m."""
    state = [g.to(s.dtype) for s, g in zip(inputs[6:], grads[5:], strict=False) if s is not None]
    return *grads[:5], None, *(state or (None,) * 3)


@differentiable(equations, NUM_TENSORS)
def _backward_chunkwise_op(ctx: Any, inputs: Grads, saved: Grads, *grads: Tensor | None) -> Grads:
    return _run_chunkwise(ctx, inputs, saved, grads, chunkwise_backward_op)


@differentiable(_step_equations, NUM_TENSORS)
def _backward_step_op(ctx: Any, inputs: Grads, _: Grads, *grads: Tensor | None) -> Grads:
    return _run_step(ctx, inputs, grads, step_backward_op)


chunkwise_op.register_autograd(_backward_chunkwise_op, setup_context=_keep_chunkwise)
step_op.register_autograd(_backward_step_op, setup_context=_keep_step)
