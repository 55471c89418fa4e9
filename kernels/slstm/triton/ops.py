"""The Triton sLSTM as differentiable operations: eager, and as ops for the compiler.

Eager code calls an ``autograd.Function``. While ``torch.compile`` or export is tracing, the same
functions are called as ``torch.library`` ops, which those can see.
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
from xlstm_rl.kernels.slstm.ops import INPUTS, NUM_TENSORS, OPTION, equations, with_state
from xlstm_rl.kernels.slstm.triton.backward import backward
from xlstm_rl.kernels.slstm.triton.forward import Saved, empty_saved, forward
from xlstm_rl.kernels.slstm.triton.step import step, step_inplace
from xlstm_rl.kernels.slstm.triton.weights import weight_grads
from xlstm_rl.kernels.types import SLSTMState

_NUM_OUTPUTS = 5


def slstm(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: SLSTMState | None,
    forget_gate: str,
) -> tuple[Tensor, SLSTMState]:
    """The whole sequence; see `xlstm_rl.kernels.slstm`."""
    inputs = (x, R, b, reset, *((None,) * 4 if state is None else state), forget_gate)
    save = wants_gradient(*inputs)
    if torch.compiler.is_compiling():
        y, h, c, n, m = sequence_op(*inputs, save)[:_NUM_OUTPUTS]
    elif save:
        y, h, c, n, m = _Sequence.apply(*inputs, save)
    else:
        y, h, c, n, m, _ = forward(x, R, b, reset, state, forget_gate, False)
    return y, (h, c, n, m)


def slstm_step(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: SLSTMState | None,
    forget_gate: str,
    inplace: bool,
) -> tuple[Tensor, SLSTMState]:
    """One step; see `xlstm_rl.kernels.slstm_step`. With gradients: a sequence of one."""
    compiling = torch.compiler.is_compiling()
    if inplace and state is not None:
        run_inplace = step_inplace_op if compiling else step_inplace
        return run_inplace(x, R, b, reset, *state, forget_gate), state
    inputs = (x, R, b, reset, *((None,) * 4 if state is None else state), forget_gate)
    if wants_gradient(*inputs):
        resets = None if reset is None else reset[:, None]
        y, state = slstm(x[:, None], R, b, resets, state, forget_gate)
        return y[:, 0], state
    y, h, c, n, m = (step_op if compiling else step)(*inputs)
    return y, (h, c, n, m)


def _equations(*inputs: Any) -> tuple[Tensor, ...]:
    return equations(*inputs[:-1])


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        outputs = _sequence(*inputs)
        _remember(ctx, inputs, outputs)
        return outputs[:_NUM_OUTPUTS]

    @staticmethod
    @differentiable(_equations, NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
        return _recall(ctx, inputs, rest, grads, _gradients)


def _sequence(*inputs: Any) -> tuple[Tensor, ...]:
    y, h, c, n, m, saved = forward(*with_state(*inputs))
    return y, h, c, n, m, *(saved or (y.new_empty(0), h.new_empty(0)))


sequence_op = torch.library.custom_op(
    "xlstm_rl::slstm_triton_sequence",
    refuse_forward_mode(_sequence),
    mutates_args=(),
    schema=schema(INPUTS, OPTION, "bool save", outputs=7),
)
"""``h``, the final h, c, n, m and the two tensors of ``Saved`` (empty unless ``save``)."""


@sequence_op.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    x, R, *_, save = inputs
    B, T, _, H, D = x.shape
    states = _new_states(x)
    saved = empty_saved(x, R) if save else (x.new_empty(0), states[0].new_empty(0))
    return x.new_empty(B, T, H, D), *states, *saved


def _gradients(
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    dn: Tensor | None,
    dm: Tensor | None,
    R: Tensor,
    reset: Tensor | None,
    h_0: Tensor | None,
    y: Tensor,
    saved: list[Tensor],
    forget_gate: str,
) -> list[Tensor]:
    has_state = h_0 is not None
    dx, *state = backward(
        dy, dh, dc, dn, dm, R, reset, y.shape, Saved(*saved), forget_gate, has_state
    )
    dR, db = weight_grads(y, h_0, reset, dx)
    return [dx, dR, db, *(s for s in state if s is not None)]


gradients_op = torch.library.custom_op(
    "xlstm_rl::slstm_triton_gradients", _gradients, mutates_args=()
)
"""The gradients of x, of R and b (float32) and, if there was a state, of h, c, n, m."""


@gradients_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    h_0, y, saved, _ = inputs[-4:]
    B, T, H, D = y.shape
    like = saved[1]
    grads = [y.new_empty(B, T, 4, H, D), like.new_empty(4, H, D, D), like.new_empty(4, H, D)]
    return grads + [like.new_empty(B, H, D) for _ in range(0 if h_0 is None else 4)]


def _head_shape(x: Tensor) -> tuple[int, int, int]:
    """B, H and D of ``x [B, T, 4, H, D]`` or ``[B, 4, H, D]``."""
    return x.shape[0], x.shape[-2], x.shape[-1]


def _new_states(x: Tensor) -> list[Tensor]:
    return [x.new_empty(_head_shape(x), dtype=torch.float32) for _ in range(4)]


def _remember(ctx: Any, inputs: tuple[Any, ...], outputs: tuple[Tensor, ...]) -> None:
    """Keep the inputs, ``h`` and what `Saved` names."""
    keep(ctx, inputs, NUM_TENSORS, outputs[0], *outputs[_NUM_OUTPUTS:])


def _recall(ctx: Any, inputs: Any, rest: Any, grads: Grads, run: Any) -> Grads:
    (_, R, b, reset, *state), (y, *saved) = inputs, rest
    dx, *others = run(*grads[:_NUM_OUTPUTS], R, reset, state[0], y, saved, ctx.options[0])
    of = (t for t in (R, b, *state) if t is not None)
    dR, db, *dstate = (g.to(t.dtype) for g, t in zip(others, of, strict=True))
    return dx, dR, db, None, *(dstate or [None] * 4), None, None


def _setup_op(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _remember(ctx, inputs, output)


@differentiable(_equations, NUM_TENSORS)
def _backward_op(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
    return _recall(ctx, inputs, rest, grads, gradients_op)


sequence_op.register_autograd(_backward_op, setup_context=_setup_op)


step_op = torch.library.custom_op(
    "xlstm_rl::slstm_triton_step", refuse_forward_mode(step), mutates_args=()
)
"""``h`` and the h, c, n, m after the step; without gradients."""


@step_op.register_fake
def _(x: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return x.new_empty(_head_shape(x)), *_new_states(x)


step_inplace_op = torch.library.custom_op(
    "xlstm_rl::slstm_triton_step_inplace",
    refuse_forward_mode(step_inplace),
    mutates_args=("h", "c", "n", "m"),
)
"""``h``; the state is overwritten."""


@step_inplace_op.register_fake
def _(x: Tensor, *_: Any) -> Tensor:
    return x.new_empty(_head_shape(x))
