"""The chunkwise mLSTM as one differentiable operation: eager, and as an op for the compiler.

Eager code calls an ``autograd.Function``. While ``torch.compile`` or export is tracing, the same
two functions are called as ``torch.library`` ops, which those can see; in eager mode these ops
would cost 0.1 ms more for each forward and backward (measured, see kernels/EQUATIONS.md).
"""

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
from xlstm_rl.kernels.mlstm.chunkwise import Saved, chunkwise_backward, chunkwise_forward
from xlstm_rl.kernels.mlstm.gates import choose_layout
from xlstm_rl.kernels.schemas import schema
from xlstm_rl.kernels.types import MLSTMState, any_reset, compute_dtype

INPUTS = (
    "Tensor q, Tensor k, Tensor v, Tensor i, Tensor f, Tensor? reset, "
    "Tensor? C_0, Tensor? n_0, Tensor? m_0"
)
GRADS = "Tensor? dh, Tensor? dC, Tensor? dn, Tensor? dm"
OPTIONS = "SymInt chunk_size, str forget_gate"

_NUM_OUTPUTS = 4
NUM_TENSORS = 9


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
    C_0, n_0, m_0 = (None, None, None) if state is None else state
    inputs = (q, k, v, i, f, reset, C_0, n_0, m_0, chunk_size, forget_gate)
    if torch.compiler.is_compiling():
        h, C, n, m = chunkwise_op(*inputs)[:_NUM_OUTPUTS]
        return h, (C, n, m)
    if reset is not None and not any_reset(reset):
        inputs = (q, k, v, i, f, None, C_0, n_0, m_0, chunk_size, forget_gate)
    if wants_gradient(*inputs):
        h, C, n, m = _Chunkwise.apply(*inputs)  # type: ignore[no-untyped-call]
    else:
        h, C, n, m, _ = chunkwise_forward(*inputs)
    return h, (C, n, m)


def equations(*inputs: Any) -> tuple[Tensor, ...]:
    """``h`` and the final C, n, m as the reference has them."""
    *tensors, C, n, m, _, forget_gate = inputs
    arguments = (*tensors, None if C is None else (C, n, m), forget_gate)
    h, after = reference.mlstm(*arguments)
    return h, *after


class _Chunkwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        *outputs, saved = chunkwise_forward(*inputs)
        keep(ctx, inputs, NUM_TENSORS, outputs[0], *saved)
        return tuple(outputs)

    @staticmethod
    @differentiable(equations, NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
        return _recall(ctx, inputs, rest, grads, chunkwise_backward_tensors)


@torch.library.custom_op(
    "xlstm_rl::mlstm_chunkwise", mutates_args=(), schema=schema(INPUTS, OPTIONS, outputs=15)
)
@refuse_forward_mode
def chunkwise_op(*inputs: Any) -> tuple[Tensor, ...]:
    """``h``, the final C, n, m and the eleven tensors of `Saved`."""
    *outputs, saved = chunkwise_forward(*inputs)
    return *outputs, *saved


@chunkwise_op.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    q, _, v, *_, chunk_size, _ = inputs
    (B, T, H, K), V = q.shape, v.shape[-1]
    N, L = choose_layout(B, T, H, chunk_size, q.is_cuda)[3:]
    shapes = (
        (B, H, K, V),
        (B, H, K),
        (B, H),
        (N, B, H, L, K),
        (N, B, H, L, K),
        (N, B, H, L, V + 1),
        (N, B, H, L, L),
        (N + 1, B, H, K, V + 1),
        (N, B, H, L),
        (N, B, H, L, L),
        (N, B, H, L),
        (N, B, H, L),
        (N, B, H, L),
        (N, B, H),
    )
    dtype = compute_dtype(q.dtype)
    return v.new_empty(v.shape), *(q.new_empty(shape, dtype=dtype) for shape in shapes)


@torch.library.custom_op(
    "xlstm_rl::mlstm_chunkwise_backward",
    mutates_args=(),
    schema=schema(
        GRADS,
        "Tensor h, Tensor i, Tensor f, Tensor? reset, Tensor? m_0, Tensor[] saved, str forget_gate",
    ),
)
def chunkwise_backward_op(*inputs: Any) -> list[Tensor]:
    """The gradients of q, k, v, i, f and, if there was a state, of C, n, m."""
    return chunkwise_backward_tensors(*inputs)


@chunkwise_backward_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    h, i, f, _, m_0, saved, _ = inputs[_NUM_OUTPUTS:]
    (B, T, H, V), K = h.shape, saved[0].shape[-1]
    grads = [h.new_empty((B, T, H, D)) for D in (K, K, V)]
    grads += [i.new_empty(i.shape), f.new_empty(f.shape)]
    if m_0 is not None:
        grads += [saved[0].new_empty(shape) for shape in ((B, H, K, V), (B, H, K), (B, H))]
    return grads


def chunkwise_backward_tensors(*inputs: Any) -> list[Tensor]:
    """What `chunkwise_backward_op` does, without the op."""
    *tensors, saved, forget_gate = inputs
    arguments = (*tensors, Saved(*saved), forget_gate)
    grads = chunkwise_backward(*arguments)
    return [g for g in grads if g is not None]


def _recall(ctx: Any, inputs: Any, rest: Any, grads: Grads, run: Any) -> Grads:
    (*_, i, f, reset, C_0, n_0, m_0), (h, *saved) = inputs, rest
    _, forget_gate = ctx.options
    dq, dk, dv, di, df, *dstate = run(
        *grads[:_NUM_OUTPUTS], h, i, f, reset, m_0, saved, forget_gate
    )
    state = [g.to(s.dtype) for s, g in zip((C_0, n_0, m_0), dstate, strict=False)]
    return dq, dk, dv, di, df, None, *(state or [None] * 3), None, None


def _setup_op(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    keep(ctx, inputs, NUM_TENSORS, output[0], *output[_NUM_OUTPUTS:])


@differentiable(equations, NUM_TENSORS)
def _backward_op(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
    return _recall(ctx, inputs, rest, grads, chunkwise_backward_op)


chunkwise_op.register_autograd(_backward_op, setup_context=_setup_op)
