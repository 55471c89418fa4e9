"""The sLSTM's loop as one differentiable operation: eager, and as an op for the compiler.

Eager code calls an ``autograd.Function``. While ``torch.compile`` or export is tracing, the same
two functions are called as ``torch.library`` ops, which those can see.
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
from xlstm_rl.kernels.schemas import schema
from xlstm_rl.kernels.slstm import reference
from xlstm_rl.kernels.slstm.scan import Saved, scan_backward, scan_forward
from xlstm_rl.kernels.types import SLSTMState, any_reset, compute_dtype

INPUTS = (
    "Tensor x, Tensor R, Tensor b, Tensor? reset, "
    "Tensor? h_0, Tensor? c_0, Tensor? n_0, Tensor? m_0"
)
GRADS = "Tensor? dy, Tensor? dh, Tensor? dc, Tensor? dn, Tensor? dm"
OPTION = "str forget_gate"

_NUM_OUTPUTS = 5
NUM_TENSORS = 8


def slstm(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: SLSTMState | None,
    forget_gate: str,
) -> tuple[Tensor, SLSTMState]:
    """The whole sequence; see `xlstm_rl.kernels.slstm`."""
    if reset is not None and not any_reset(reset):
        reset = None
    inputs = (x, R, b, reset, *((None,) * 4 if state is None else state), forget_gate)
    if torch.compiler.is_compiling():
        y, h, c, n, m = scan_op(*inputs)[:_NUM_OUTPUTS]
    elif wants_gradient(*inputs):
        y, h, c, n, m = _Scan.apply(*inputs)  # type: ignore[no-untyped-call]
    else:
        y, h, c, n, m, _ = scan_forward(x, R, b, reset, state, forget_gate)
    return y, (h, c, n, m)


def equations(*inputs: Any) -> tuple[Tensor, ...]:
    """``h [B, T, H, D]`` and the final h, c, n, m as the reference has them."""
    y, after = reference.slstm(*with_state(*inputs))
    return y, *after


def with_state(*inputs: Any) -> tuple[Any, ...]:
    """The inputs of an op with h, c, n, m as one state, or None where there is none."""
    x, R, b, reset, *state = inputs[:NUM_TENSORS]
    return x, R, b, reset, None if state[0] is None else tuple(state), *inputs[NUM_TENSORS:]


class _Scan(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        *outputs, saved = scan_forward(*with_state(*inputs))
        keep(ctx, inputs, NUM_TENSORS, *saved)
        return tuple(outputs)

    @staticmethod
    @differentiable(equations, NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, saved: Grads, *grads: Tensor | None) -> Grads:
        return _recall(ctx, inputs, saved, grads, scan_backward_tensors)


@torch.library.custom_op(
    "xlstm_rl::slstm_scan", mutates_args=(), schema=schema(INPUTS, OPTION, outputs=11)
)
@refuse_forward_mode
def scan_op(*inputs: Any) -> tuple[Tensor, ...]:
    """``h``, the final h, c, n, m and the six tensors of `Saved`."""
    *outputs, saved = scan_forward(*with_state(*inputs))
    return *outputs, *saved


@scan_op.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    B, T, _, H, D = x.shape
    dtype = compute_dtype(x.dtype)
    shapes = (
        *((B, H, D),) * 4,
        (T, H, B, 4, D),
        *((T + 1, H, B, D),) * 3,
        *((T, H, B, D),) * 2,
    )
    return x.new_empty((B, T, H, D)), *(x.new_empty(shape, dtype=dtype) for shape in shapes)


@torch.library.custom_op(
    "xlstm_rl::slstm_scan_backward",
    mutates_args=(),
    schema=schema(
        GRADS,
        "Tensor R, Tensor b, Tensor? reset, Tensor[] saved",
        OPTION,
        "ScalarType dtype, bool has_state",
    ),
)
def scan_backward_op(*inputs: Any) -> list[Tensor]:
    """The gradients of x, R, b and, if there was a state, of h, c, n, m."""
    return scan_backward_tensors(*inputs)


@scan_backward_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    R, b, _, saved, _, dtype, has_state = inputs[_NUM_OUTPUTS:]
    gates = saved[0]
    T, H, B, _, D = gates.shape
    grads = [
        gates.new_empty((B, T, 4, H, D), dtype=dtype),
        R.new_empty(R.shape),
        b.new_empty(b.shape),
    ]
    return grads + [gates.new_empty((B, H, D)) for _ in range(4 * has_state)]


def scan_backward_tensors(*inputs: Any) -> list[Tensor]:
    """What `scan_backward_op` does, without the op."""
    *tensors, saved, forget_gate, dtype, has_state = inputs
    arguments = (*tensors, Saved(*saved), forget_gate, dtype, has_state)
    grads = scan_backward(*arguments)
    return [g for g in grads if g is not None]


def _recall(ctx: Any, inputs: Any, saved: Any, grads: Grads, run: Any) -> Grads:
    x, R, b, reset, *state = inputs
    (forget_gate,) = ctx.options
    has_state = state[0] is not None
    dx, dR, db, *dstate = run(
        *grads[:_NUM_OUTPUTS], R, b, reset, list(saved), forget_gate, x.dtype, has_state
    )
    dstate = [g.to(s.dtype) for s, g in zip(state, dstate, strict=False)]
    return dx, dR, db, None, *(dstate or [None] * 4), None


def _setup_op(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    keep(ctx, inputs, NUM_TENSORS, *output[_NUM_OUTPUTS:])


@differentiable(equations, NUM_TENSORS)
def _backward_op(ctx: Any, inputs: Grads, saved: Grads, *grads: Tensor | None) -> Grads:
    return _recall(ctx, inputs, saved, grads, scan_backward_op)


scan_op.register_autograd(_backward_op, setup_context=_setup_op)
