"""The sLSTM in C as differentiable operations: eager, and as ops for the compiler.

Eager code calls an ``autograd.Function``. While ``torch.compile`` is tracing, the same functions
are called as ``torch.library`` ops, which it can see.
"""

import functools
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
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.arguments import bytes_for, contiguous, pointer, run, struct
from xlstm_rl.kernels.native.workspace import lend_floats, scratch
from xlstm_rl.kernels.slstm.ops import NUM_TENSORS, equations
from xlstm_rl.kernels.types import SLSTMState

_NUM_OUTPUTS = 5
_GATES, _STATES = 5, 3  # floats that are saved of every element and step, and of one step more

_Forward = struct(
    "_Forward",
    "B T H D exponential",
    "x convolved normed weight R b reset h0 c0 n0 m0 y hT cT nT mT saved work",
)
_Backward = struct(
    "_Backward",
    "B T H D exponential has_state",
    "convolved normed weight R reset dy dhT dcT dnT dmT saved "
    "dx dconvolved dnormed dweight dR db dh0 dc0 dn0 dm0 work",
)


@functools.cache
def _lanes() -> int:
    """What head sizes are rounded up to."""
    return bytes_for("xl_slstm_lanes", _Forward())


@functools.lru_cache(1024)
def _work_bytes(name: str, B: int, T: int, H: int, D: int) -> int:
    return bytes_for(f"xl_slstm_{name}", _Forward(B, T, H, D))


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
        y, h, c, n, m = _Sequence.apply(*inputs)  # type: ignore[no-untyped-call]
    else:
        y, h, c, n, m, _ = _forward(x, R, b, reset, state, forget_gate, False)
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
    """One step; see `xlstm_rl.kernels.slstm_step`: a sequence of one."""
    resets = None if reset is None else reset[:, None]
    if inplace and state is not None and not torch.compiler.is_compiling():
        into = state if all(s.is_contiguous() for s in state) else None
        y, h, c, n, m, _ = _forward(x[:, None], R, b, resets, state, forget_gate, False, into)
        if into is None:
            for s, after in zip(state, (h, c, n, m), strict=True):
                s.copy_(after)
        else:
            note_overwritten(into)
        return y[:, 0], state
    y, final = slstm(x[:, None], R, b, resets, state, forget_gate)
    if inplace and state is not None:
        h, c, n, m = (s.copy_(a) for s, a in zip(state, final, strict=True))
        final = h, c, n, m
    return y[:, 0], final


def _equations(*inputs: Any) -> tuple[Tensor, ...]:
    return equations(*inputs[: NUM_TENSORS + 1])  # without what an op is told besides


def _forward(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: SLSTMState | None,
    forget_gate: str,
    save: bool,
    into: SLSTMState | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``h [B, T, H, D]``, the final h, c, n, m, in ``into`` if given, and what is saved."""
    B, T, _, H, D = x.shape
    x, R, b = (t.contiguous() for t in (x, R, b))
    reset = contiguous(reset)
    first = [None] * 4 if state is None else [s.contiguous() for s in state]
    y = x.new_empty(B, T, H, D)
    after = tuple(x.new_empty(B, H, D) for _ in range(4)) if into is None else into
    saved = lend_floats(saved_size(B, T, H, D)) if save else x.new_empty(0)
    pointers = (x, None, None, None, R, b, reset, *first, y, *after, saved if save else None)
    sizes = (B, T, H, D, forget_gate == "exponential")
    with scratch(_work_bytes("work_bytes", B, T, H, D)) as work:
        run("xl_slstm_forward", _Forward(*sizes, *map(pointer, pointers), work))
    h, c, n, m = after
    return y, h, c, n, m, saved


def saved_size(B: Any, T: Any, H: int, D: int) -> Any:
    """Floats that hold what the backward reads again, of sizes that may be symbols."""
    lanes = _lanes()
    return H * B * (_GATES * T + _STATES * (T + 1)) * ((D + lanes - 1) // lanes * lanes)


def _backward(
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    dn: Tensor | None,
    dm: Tensor | None,
    R: Tensor,
    reset: Tensor | None,
    saved: Tensor,
    forget_gate: str,
    sizes: list[int],
    has_state: bool,
) -> list[Tensor]:
    """The gradients of x, R, b and, if there was a state, of h, c, n, m."""
    B, T, H, D = sizes
    dx, dR, db = R.new_empty(B, T, 4, H, D), R.new_empty(R.shape), R.new_empty(4, H, D)
    first = [R.new_empty(B, H, D) for _ in range(4 * has_state)]
    none: list[Tensor | None] = [None] * 4
    grads = [contiguous(g) for g in (dy, dh, dc, dn, dm)]
    given = (None, None, None, R.contiguous(), contiguous(reset), *grads, saved)
    pointers = (*given, dx, None, None, None, dR, db, *(first or none))
    arguments = (B, T, H, D, forget_gate == "exponential", has_state)
    with scratch(_work_bytes("backward_work_bytes", B, T, H, D)) as work:
        run("xl_slstm_backward", _Backward(*arguments, *map(pointer, pointers), work))
    return [dx, dR, db, *first]


def _recall(ctx: Any, inputs: Any, rest: Any, grads: Grads, backward: Any) -> Grads:
    x, R, _, reset, *state = inputs
    (forget_gate, *_), has_state = ctx.options, state[0] is not None
    B, T, _, H, D = x.shape
    arguments = (R, reset, *rest, forget_gate, [B, T, H, D], has_state)
    dx, dR, db, *dstate = backward(*grads[:_NUM_OUTPUTS], *arguments)
    return dx, dR, db, None, *(dstate or [None] * 4), *(None,) * len(ctx.options)


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        x, R, b, reset, *state, forget_gate = inputs
        given = None if state[0] is None else tuple(state)
        *outputs, saved = _forward(x, R, b, reset, given, forget_gate, True)
        keep(ctx, inputs, NUM_TENSORS, saved)
        return tuple(outputs)

    @staticmethod
    @differentiable(_equations, NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
        return _recall(ctx, inputs, rest, grads, _backward)


@torch.library.custom_op("xlstm_rl::native_slstm", mutates_args=())
@refuse_forward_mode
def sequence_op(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    h_0: Tensor | None,
    c_0: Tensor | None,
    n_0: Tensor | None,
    m_0: Tensor | None,
    forget_gate: str,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``h``, the final h, c, n, m and what the backward reads again."""
    state = None
    if h_0 is not None and c_0 is not None and n_0 is not None and m_0 is not None:
        state = (h_0, c_0, n_0, m_0)
    return _forward(x, R, b, reset, state, forget_gate, save)


@sequence_op.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    B, T, _, H, D = x.shape
    size = saved_size(B, T, H, D) if others[-1] else 0
    states = (x.new_empty((B, H, D)) for _ in range(4))
    return x.new_empty((B, T, H, D)), *states, x.new_empty(size)


@torch.library.custom_op("xlstm_rl::native_slstm_backward", mutates_args=())
def backward_op(
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    dn: Tensor | None,
    dm: Tensor | None,
    R: Tensor,
    reset: Tensor | None,
    saved: Tensor,
    forget_gate: str,
    sizes: list[int],
    has_state: bool,
) -> list[Tensor]:
    """What ``_backward`` does, as an op."""
    return _backward(dy, dh, dc, dn, dm, R, reset, saved, forget_gate, sizes, has_state)


@backward_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    R, *_, (B, T, H, D), has_state = inputs[_NUM_OUTPUTS:]
    shapes = [(B, T, 4, H, D), (4, H, D, D), (4, H, D), *[(B, H, D)] * (4 * has_state)]
    return [R.new_empty(shape) for shape in shapes]


def _setup_op(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    keep(ctx, inputs, NUM_TENSORS, *output[_NUM_OUTPUTS:])


@differentiable(_equations, NUM_TENSORS)
def _backward_op(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
    return _recall(ctx, inputs, rest, grads, backward_op)


sequence_op.register_autograd(_backward_op, setup_context=_setup_op)
