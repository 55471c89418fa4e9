"""The whole mLSTM block in one call of the library: norm to residual, forward and backward."""

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
from xlstm_rl.kernels.native.arguments import bytes_for, contiguous, pointer, run, struct
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.workspace import lend_tensor, scratch

STATE = ("conv", "C", "n", "m")
_FIRST_WEIGHT = 2 + len(STATE)  # behind x, reset and the state
_NUM_TENSORS = _FIRST_WEIGHT + len(MLSTMBlockWeights._fields)


def _each(prefix: str, names: tuple[str, ...]) -> str:
    return " ".join(prefix + name for name in names)


_Arguments = struct(
    "mlstm_block_arguments",
    "B T D I H W S exponential workers",
    f"x reset {_each('', MLSTMBlockWeights._fields)} {_each('before_', STATE)} out "
    f"{_each('after_', STATE)} dout {_each('dafter_', STATE)} dx "
    f"{_each('d', MLSTMBlockWeights._fields)} {_each('dbefore_', STATE)} saved work",
)


class _NotFiniteError(Exception):
    """A result is not finite: what then stays where, the equations know."""


def covers(
    x: Tensor, reset: Tensor | None, state: State | None, w: MLSTMBlockWeights, heads: int
) -> bool:
    """Whether all tensors are what C takes them for; where not, torch says what is wrong.

    ``x [B, T, D]`` or ``[B, D]`` is float32 on the CPU.
    """
    B, D = x.shape[0], x.shape[-1]
    I, S = w.skip.shape[0], w.qkv.shape[-1]
    K, taps = I // heads, 0 if w.conv is None else w.conv.shape[-1]
    shapes: tuple[tuple[int, ...], ...] = (
        *((D,), (2 * I, D), (2 * I,), (I, taps), (I,), (3 * I // S, S, S), (3 * I,)),
        *((2 * heads, 3 * I), (2 * heads,), (I,), (I,), (D, I), (D,)),
    )
    tensors: tuple[Tensor | None, ...] = w
    if state is not None:
        tensors += state
        shapes += ((B, taps - 1, I),) * (taps > 0) + ((B, heads, K, K), (B, heads, K), (B, heads))
        if len(tensors) != len(shapes):
            return False
    if reset is not None and not (
        reset.dtype is torch.bool and reset.is_cpu and reset.shape == x.shape[:-1]
    ):
        return False
    for t, shape in zip(tensors, shapes, strict=True):
        if t is not None and not (t.dtype is torch.float32 and t.shape == shape and t.is_cpu):
            return False
    return I == heads * K and I % S == 0


def run_mlstm_block(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: MLSTMBlockWeights,
    options: MLSTMBlockOptions,
) -> tuple[Tensor, State] | None:
    """Do what :func:`mlstm_block` does; ``None``: that has to do it.

    Because a tensor is not what C takes it for, or because something is not finite.
    """
    if not covers(x, reset, state, weights, options.num_heads):
        return None
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
    return out, *(after if len(after) == len(STATE) else (None, *after))


@differentiable(_equations, _NUM_TENSORS)
def _backward_of(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
    found = _backward((*inputs, *ctx.options), rest[0], grads)
    if found is None:
        found = pull_back(_equations, ctx.options, inputs, grads)
    return (*found, *(None,) * len(ctx.options))


def _forward(inputs: tuple[Any, ...]) -> tuple[tuple[Tensor | None, ...], Tensor]:
    """``out``, the state behind it (of no convolution ``None``) and what the backward needs."""
    sizes, held = _sizes(inputs)
    B, T, D, I, H, W = sizes[:6]
    x, K = inputs[0], I // H
    out = x.new_empty(B, T, D)
    after = [x.new_empty(s) for s in ((B, H, K, K), (B, H, K), (B, H))]
    outputs = (out, x.new_empty(B, W - 1, I) if W else None, *after)
    arguments = _Arguments(*sizes, *map(pointer, (*_reordered(held), *outputs)))
    saved = lend_tensor(bytes_for("xl_mlstm_block_saved_bytes", arguments))
    arguments.saved = saved.data_ptr()
    with scratch(bytes_for("xl_mlstm_block_forward_bytes", arguments)) as work:
        arguments.work = work
        if run("xl_mlstm_block_forward", arguments):
            raise _NotFiniteError
    return outputs, saved


def _backward(inputs: tuple[Any, ...], saved: Any, grads: Grads) -> Grads | None:
    """The gradients of all inputs; ``None`` where one of them is not finite."""
    sizes, held = _sizes(inputs)
    make = torch.empty_like if sizes[0] else torch.zeros_like
    found = [
        make(t) if t is not None and (n < _FIRST_WEIGHT or inputs[n].requires_grad) else None
        for n, t in enumerate(held)
    ]
    found[1] = None  # reset
    dout, *dafter = map(contiguous, grads)
    dout = torch.zeros_like(inputs[0]) if dout is None else dout
    dx, _, *others = found
    dbefore, dweights = others[: len(STATE)], others[len(STATE) :]
    none = (None,) * (1 + len(STATE))
    given = (*_reordered(held), *none, dout, *dafter, dx, *dweights, *dbefore)
    arguments = _Arguments(*sizes, *map(pointer, given))
    arguments.saved = saved.data_ptr()
    with scratch(bytes_for("xl_mlstm_block_backward_bytes", arguments)) as work:
        arguments.work = work
        status = run("xl_mlstm_block_backward", arguments)
    return None if status else tuple(found)


def _sizes(inputs: tuple[Any, ...]) -> tuple[tuple[int, ...], list[Tensor | None]]:
    """The sizes as C takes them, and the contiguous tensors that have to outlive the call."""
    held = [contiguous(t) for t in inputs[:_NUM_TENSORS]]
    w = MLSTMBlockWeights(*inputs[_FIRST_WEIGHT:_NUM_TENSORS])
    num_heads, forget_gate = inputs[_NUM_TENSORS:]
    taps = 0 if w.conv is None else w.conv.shape[1]
    shape = (*inputs[0].shape, w.skip.shape[0], num_heads, taps, w.qkv.shape[1])
    return (*shape, forget_gate == "exponential", num_threads()), held


def _reordered(held: list[Tensor | None]) -> list[Tensor | None]:
    """The weights in front of the state, as C has them."""
    return [*held[:2], *held[_FIRST_WEIGHT:], *held[2:_FIRST_WEIGHT]]


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
    before = state or [None] * len(STATE)
    before = before if len(before) == len(STATE) else [None, *before]
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
