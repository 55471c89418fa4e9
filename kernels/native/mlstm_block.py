"""The whole mLSTM block in one call of the library: norm to residual, forward and backward."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, pull_back, wants_gradient
from xlstm_rl.kernels.mlstm.block import (
    MLSTMBlockOptions,
    MLSTMBlockWeights,
    State,
    mlstm_block,
)
from xlstm_rl.kernels.native.library import call, library, num_threads
from xlstm_rl.kernels.native.workspace import lend_tensor, scratch

_WEIGHTS = MLSTMBlockWeights._fields
_STATE = ("conv", "C", "n", "m")
_NUM_TENSORS = 2 + len(_STATE) + len(_WEIGHTS)  # x, reset, the state, the weights
_SIZES = ("B", "T", "D", "I", "H", "W", "S", "exponential", "workers")


class _Arguments(ctypes.Structure):
    """``mlstm_block_arguments`` of ``src/mlstm_block.h``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in ("x", "reset")),
        ("weights", ctypes.c_void_p * len(_WEIGHTS)),
        ("before", ctypes.c_void_p * len(_STATE)),
        ("out", ctypes.c_void_p),
        ("after", ctypes.c_void_p * len(_STATE)),
        ("dout", ctypes.c_void_p),
        ("dafter", ctypes.c_void_p * len(_STATE)),
        ("dx", ctypes.c_void_p),
        ("dweights", ctypes.c_void_p * len(_WEIGHTS)),
        ("dbefore", ctypes.c_void_p * len(_STATE)),
        *((name, ctypes.c_void_p) for name in ("saved", "work")),
    )


class _NotFiniteError(Exception):
    """A result is not finite: what then stays where, the equations know."""


def covers(tensors: Any) -> bool:
    """Whether the library can run on these inputs, state tensors and weights."""
    return all(t is None or (t.dtype is torch.float32 and t.is_cpu) for t in tensors)


def run_mlstm_block(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: MLSTMBlockWeights,
    options: MLSTMBlockOptions,
) -> tuple[Tensor, State] | None:
    """Do what :func:`mlstm_block` does; ``None`` where something is not finite."""
    conv = weights.conv is not None
    before = (None,) * 4 if state is None else state if conv else (None, *state)
    inputs = (x, reset, *before, *weights, options.num_heads, options.forget_gate)
    if torch.compiler.is_compiling():
        outputs = _op(x, reset, list(state or ()), list(weights), *inputs[_NUM_TENSORS:])
        return outputs[0], tuple(outputs[1:])
    try:
        if wants_gradient(*inputs):
            out, *after = _Block.apply(*inputs)  # type: ignore[no-untyped-call]
        else:
            (out, *after), _ = _forward(inputs)
    except _NotFiniteError:
        return None
    return out, tuple(after[0 if conv else 1 :])


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor | None, ...]:
        outputs, saved = _forward(inputs)
        keep(ctx, inputs, _NUM_TENSORS, saved)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        return _backward_of(ctx, *grads)


def _equations(*inputs: Any) -> tuple[Tensor | None, ...]:
    """All outputs from all inputs, in operations that torch differentiates."""
    x, reset, conv, C, n, m, *weights = inputs[:_NUM_TENSORS]
    num_heads, forget_gate = inputs[_NUM_TENSORS:]
    state = None if C is None else (C, n, m) if conv is None else (conv, C, n, m)
    options = MLSTMBlockOptions(num_heads, forget_gate, backend="torch")
    out, after = mlstm_block(x, reset, state, MLSTMBlockWeights(*weights), options)
    return out, *(after if len(after) == len(_STATE) else (None, *after))


@differentiable(_equations, _NUM_TENSORS)
def _backward_of(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
    found = _backward((*inputs, *ctx.options), rest[0], grads)
    if found is None:
        found = pull_back(_equations, ctx.options, inputs, grads)
    return (*found, *(None,) * len(ctx.options))


def _forward(inputs: tuple[Any, ...]) -> tuple[tuple[Tensor | None, ...], Tensor]:
    """``out``, the state behind it (of no convolution ``None``) and what the backward needs."""
    arguments, held = _arguments(inputs)
    x, conv = held[0], inputs[2 + len(_STATE) + _WEIGHTS.index("conv")]
    (B, _, D), H, I = x.shape, arguments.H, arguments.I
    K = I // H
    shapes = ((B, arguments.W - 1, I), (B, H, K, K), (B, H, K), (B, H))
    out = torch.empty_like(x)
    after = [x.new_empty(s) if conv is not None or n else None for n, s in enumerate(shapes)]
    arguments.out = out.data_ptr()
    arguments.after[:] = _pointers(after)
    loaded = _library()
    saved = lend_tensor(loaded.xl_mlstm_block_saved_bytes(ctypes.byref(arguments)))
    arguments.saved = saved.data_ptr()
    with scratch(loaded.xl_mlstm_block_forward_bytes(ctypes.byref(arguments))) as work:
        arguments.work = work
        status = call(loaded.xl_mlstm_block_forward, arguments)
    if status:
        raise _NotFiniteError
    return (out, *after), saved


def _backward(inputs: tuple[Any, ...], saved: Any, grads: Grads) -> Grads | None:
    """The gradients of all inputs; ``None`` where one of them is not finite."""
    arguments, held = _arguments(inputs)
    x = held[0]
    make = torch.empty_like if x.shape[0] else torch.zeros_like
    found = [
        make(t) if t is not None and (n < 2 + len(_STATE) or inputs[n].requires_grad) else None
        for n, t in enumerate(held)
    ]
    found[1] = None  # reset
    dout, *dafter = (None if g is None else g.contiguous() for g in grads)
    if dout is None:
        dout = torch.zeros_like(x)
    arguments.dout, arguments.dx = dout.data_ptr(), found[0].data_ptr()
    arguments.dafter[:] = _pointers(dafter)
    arguments.dbefore[:] = _pointers(found[2:6])
    arguments.dweights[:] = _pointers(found[6:])
    arguments.saved = saved.data_ptr()
    loaded = _library()
    with scratch(loaded.xl_mlstm_block_backward_bytes(ctypes.byref(arguments))) as work:
        arguments.work = work
        status = call(loaded.xl_mlstm_block_backward, arguments)
    return None if status else tuple(found)


def _arguments(inputs: tuple[Any, ...]) -> tuple[Any, list[Tensor | None]]:
    """The inputs as C takes them, and the contiguous tensors that have to outlive the call."""
    held = [None if t is None else t.contiguous() for t in inputs[:_NUM_TENSORS]]
    x, _, *rest = held
    weights = MLSTMBlockWeights(*rest[len(_STATE) :])
    num_heads, forget_gate = inputs[_NUM_TENSORS:]
    taps = 0 if weights.conv is None else weights.conv.shape[1]
    sizes = (*x.shape, weights.skip.shape[0], num_heads, taps, weights.qkv.shape[1])
    arguments = _Arguments(*sizes, forget_gate == "exponential", num_threads())
    arguments.x, arguments.reset = _pointers(held[:2])
    arguments.before[:] = _pointers(held[2:6])
    arguments.weights[:] = _pointers(weights)
    return arguments, held


def _pointers(tensors: Any) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]


def _library() -> Any:
    loaded = library()
    assert loaded is not None  # the caller has asked whether it may run
    return loaded


@torch.library.custom_op("xlstm_rl::mlstm_block", mutates_args=())
def _op(
    x: Tensor,
    reset: Tensor | None,
    state: list[Tensor],
    weights: list[Tensor | None],
    num_heads: int,
    forget_gate: str,
) -> list[Tensor]:
    """``out`` and the state behind it."""
    inputs = _flat(x, reset, state, weights, num_heads, forget_gate)
    try:
        outputs = _forward(inputs)[0]
    except _NotFiniteError:
        outputs = _equations(*inputs)
    return [t for t in outputs if t is not None]


@_op.register_fake
def _(
    x: Tensor,
    reset: Tensor | None,
    state: list[Tensor],
    weights: list[Tensor | None],
    num_heads: int,
    forget_gate: str,
) -> list[Tensor]:
    w = MLSTMBlockWeights(*weights)  # type: ignore[arg-type]
    B, I = x.shape[0], w.skip.shape[0]
    K = I // num_heads
    shapes = [(B, num_heads, K, K), (B, num_heads, K), (B, num_heads)]
    if w.conv is not None:
        shapes.insert(0, (B, w.conv.shape[1] - 1, I))
    return [torch.empty_like(x), *(x.new_empty(s) for s in shapes)]


@torch.library.custom_op("xlstm_rl::mlstm_block_backward", mutates_args=())
def _backward_op(
    x: Tensor,
    reset: Tensor | None,
    state: list[Tensor],
    weights: list[Tensor | None],
    num_heads: int,
    forget_gate: str,
    grads: list[Tensor],
) -> list[Tensor]:
    """The gradients of x, the state and the weights that there are, of those of all outputs.

    Compiled code keeps the inputs alone, and the forward runs once more here.
    """
    inputs = [
        t.detach().requires_grad_(t.is_floating_point()) if isinstance(t, Tensor) else t
        for t in _flat(x, reset, state, weights, num_heads, forget_gate)
    ]
    given = grads if MLSTMBlockWeights(*weights).conv is not None else (grads[0], None, *grads[1:])
    try:
        found = _backward(tuple(inputs), _forward(tuple(inputs))[1], tuple(given))
    except _NotFiniteError:
        found = None
    if found is None:
        found = pull_back(
            _equations, tuple(inputs[_NUM_TENSORS:]), tuple(inputs[:_NUM_TENSORS]), given
        )
    return [g for g in found if g is not None]


@_backward_op.register_fake
def _(
    x: Tensor,
    reset: Tensor | None,
    state: list[Tensor],
    weights: list[Tensor | None],
    num_heads: int,
    forget_gate: str,
    grads: list[Tensor],
) -> list[Tensor]:
    return [torch.empty_like(t) for t in (x, *state, *weights) if t is not None]


def _flat(
    x: Tensor,
    reset: Tensor | None,
    state: list[Tensor],
    weights: list[Tensor | None],
    num_heads: int,
    forget_gate: str,
) -> tuple[Any, ...]:
    """The arguments of the ops as those of `_forward`."""
    before = state or [None] * len(_STATE)
    before = before if len(before) == len(_STATE) else [None, *before]
    return (x, reset, *before, *weights, num_heads, forget_gate)


def _setup_op(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    x, reset, state, weights, *ctx.options = inputs
    ctx.num_state, ctx.given = len(state), [w is not None for w in weights]
    ctx.save_for_backward(x, reset, *state, *(w for w in weights if w is not None))


def _backward_of_op(ctx: Any, grads: list[Tensor]) -> tuple[Any, ...]:
    x, reset, *rest = ctx.saved_tensors
    state, each = rest[: ctx.num_state], iter(rest[ctx.num_state :])
    weights = [next(each) if given else None for given in ctx.given]
    dx, *found = _backward_op(
        x, reset, state, weights, *ctx.options, [g.contiguous() for g in grads]
    )
    each = iter(found[ctx.num_state :])
    dweights = [next(each) if given else None for given in ctx.given]
    return dx, None, found[: ctx.num_state], dweights, None, None


_op.register_autograd(_backward_of_op, setup_context=_setup_op)
