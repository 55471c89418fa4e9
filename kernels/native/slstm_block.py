"""The whole sLSTM block in C as differentiable operations: eager, and as ops for the compiler.

See ``xlstm_rl.memory.slstm_block`` for what the block is, ``src/slstm_block.h`` for how it runs.
"""

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

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
from xlstm_rl.kernels.conv1d import shifted
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.arguments import contiguous, pointer, struct
from xlstm_rl.kernels.native.library import call, library, num_threads
from xlstm_rl.kernels.native.slstm import saved_size as cell_saved_size
from xlstm_rl.kernels.native.workspace import lend_floats, scratch
from xlstm_rl.kernels.slstm import reference

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "relu^2": lambda x: F.relu(x).square(),
    "sigmoid": torch.sigmoid,
    "swish": F.silu,
    "selu": F.selu,
}
"""In the order of ``src/activation.h``."""

NORM_EPS = 1e-5


class Weights(NamedTuple):
    """The parameters of a block; ``None`` where it has none."""

    norm: Tensor  # [D]
    taps: Tensor | None  # [D, W]
    taps_bias: Tensor | None  # [D]
    input: Tensor  # [4, H, D / H (from), D / H (to)]
    R: Tensor  # the same
    b: Tensor  # [4, H, D / H]
    head_norm: Tensor  # [D]
    ff_norm: Tensor | None  # [D]
    up: Tensor | None  # [2 F, D]
    up_bias: Tensor | None  # [2 F]
    down: Tensor | None  # [D, F]
    down_bias: Tensor | None  # [D]


class State(NamedTuple):
    """The state of a block; ``window`` has no rows where there is no convolution."""

    window: Tensor  # [B, W - 1, D]
    h: Tensor  # [B, H, D / H], as the other three
    c: Tensor
    n: Tensor
    m: Tensor


_NUM_STATES, _NUM_WEIGHTS = len(State._fields), len(Weights._fields)
_NUM_OUTPUTS = 1 + _NUM_STATES
_NUM_TENSORS = 2 + _NUM_STATES + _NUM_WEIGHTS

_STATE, _WEIGHTS = " ".join(State._fields), " ".join(Weights._fields)
_SIZES = "B T D H W F activation exponential threads"


def _prefixed(prefix: str, names: str) -> str:
    return " ".join(prefix + name for name in names.split())


_FORWARD = (
    f"{_prefixed('w_', _WEIGHTS)} {_prefixed('before_', _STATE)} x out reset "
    f"{_prefixed('after_', _STATE)} saved work"
)
_Forward = struct("_Forward", _SIZES, _FORWARD)
_Backward = struct(
    "_Backward",
    _SIZES,
    f"{_FORWARD} dout {_prefixed('dafter_', _STATE)} dx {_prefixed('dw_', _WEIGHTS)} "
    f"{_prefixed('dbefore_', _STATE)} backward_work",
)


@functools.cache
def _library() -> Any:
    """The library, with what its functions take and return."""
    loaded = library()
    assert loaded is not None  # asked at the door
    for name in ("saved_size", "work_size", "backward_work_size"):
        getattr(loaded, f"xl_slstm_block_{name}").restype = ctypes.c_int64
    return loaded


@functools.lru_cache(256)
def _work_size(sizes: tuple[int, ...], saving: bool, backward: bool) -> int:
    arguments = _Forward(*sizes, saved=int(saving) or None)
    name = "backward_work_size" if backward else "work_size"
    size: int = getattr(_library(), f"xl_slstm_block_{name}")(ctypes.byref(arguments))
    return size


def saved_size(B: Any, T: Any, D: int, H: int, W: int, F: int) -> Any:
    """Floats that hold what the backward reads again, of sizes that may be symbols."""
    per_row = 2 * D + 2 + 2 * H
    if W:
        per_row += 2 * D + 1
    if F:
        per_row += D + 2 + 2 * F
    parts = 16 * 16  # each begins at a cache line
    return B * T * per_row + B + parts + cell_saved_size(B, T, H, D // H)


def covers(
    x: Tensor,
    reset: Tensor | None,
    state: tuple[Tensor, ...] | None,
    weights: Weights,
    options: tuple[Any, ...],
) -> bool:
    """Whether all tensors are what C takes them for; where not, torch says what is wrong.

    ``x [B, T, D]`` or ``[B, D]`` is float32 on the CPU. ``state`` is without a window where there is
    no convolution.
    """
    heads, taps, hidden = options[:3]
    B, D = x.shape[0], x.shape[-1]
    size = D // heads
    matrices, vector = (4, heads, size, size), (D,)
    shapes = (
        *(vector, (D, taps), vector, matrices, matrices, (4, heads, size), vector),
        *(vector, (2 * hidden, D), (2 * hidden,), (D, hidden), vector),
    )
    if state is not None:
        shapes += ((B, taps - 1, D),) * (taps > 0) + ((B, heads, size),) * 4
    if reset is not None and not (
        reset.dtype is torch.bool and reset.is_cpu and reset.shape == x.shape[:-1]
    ):
        return False
    return D == heads * size and all(
        t is None or (t.shape == shape and t.dtype is torch.float32 and t.is_cpu)
        for t, shape in zip((*weights, *(state or ())), shapes, strict=True)
    )


def sequence(
    x: Tensor, reset: Tensor | None, state: State | None, weights: Weights, options: tuple[Any, ...]
) -> tuple[Tensor, State]:
    """Run x ``[B, T, D]``; shapes, dtypes and devices were checked.

    Args:
        options: heads, taps (0: no convolution), hidden width of the feed-forward (0: none), its
            activation, and the forget gate.
    """
    inputs = (x, reset, *(state or (None,) * _NUM_STATES), *weights, *options)
    save = wants_gradient(*inputs)
    if torch.compiler.is_compiling():
        outputs = sequence_op(*inputs, save)[:_NUM_OUTPUTS]
    elif save:
        outputs = _Sequence.apply(*inputs)  # type: ignore[no-untyped-call]
    else:
        outputs = _forward(inputs, False)[:_NUM_OUTPUTS]
    return outputs[0], State(*outputs[1:])


def step(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: Weights,
    options: tuple[Any, ...],
    inplace: bool,
) -> tuple[Tensor, State]:
    """Run x ``[B, D]``, a sequence of one; ``inplace`` into the tensors of the state."""
    reset = None if reset is None else reset[:, None]
    x = x[:, None]
    if inplace and state is not None and not torch.compiler.is_compiling():
        if all(s.is_contiguous() for s in state):
            out = _forward((x, reset, *state, *weights, *options), False, state)[0]
            note_overwritten(state)
            return out[:, 0], state
    y, after = sequence(x, reset, state, weights, options)
    if inplace and state is not None:
        after = State(*(s.copy_(a) for s, a in zip(state, after, strict=True)))
    return y[:, 0], after


def equations(
    x: Tensor,
    reset: Tensor | None,
    *others: Any,
) -> tuple[Tensor, ...]:
    """The block as torch differentiates it by itself: out, and the state after the last step."""
    before, rest = State(*others[:_NUM_STATES]), others[_NUM_STATES:]
    w = Weights(*rest[:_NUM_WEIGHTS])
    heads, taps, hidden, activation, forget_gate = rest[_NUM_WEIGHTS:][:5]
    B, T, D = x.shape
    fresh = before.h is None
    u = F.layer_norm(x, (D,), w.norm, eps=NORM_EPS)
    c, window = u, x.new_empty(B, 0, D)
    if taps:
        assert w.taps is not None
        given = None if fresh else before.window
        p, window = shifted.causal_conv1d(u, w.taps, w.taps_bias, reset, given)
        c = F.silu(p)
    halves = torch.stack([c, c, u, u], 2).unflatten(-1, (heads, -1))  # [B, T, 4, H, D / H]
    gates = torch.einsum("btghi,ghio->btgho", halves, w.input)
    state = None if fresh else before[1:]
    y, after = reference.slstm(gates, w.R, w.b, reset, state, forget_gate)  # type: ignore[arg-type]
    out = x + F.layer_norm(y, (D // heads,), eps=NORM_EPS).flatten(-2) * w.head_norm
    if hidden:
        assert w.up is not None and w.down is not None
        v = F.layer_norm(out, (D,), w.ff_norm, eps=NORM_EPS)
        gate, up = F.linear(v, w.up, w.up_bias).chunk(2, -1)
        out = out + F.linear(ACTIVATIONS[activation](gate) * up, w.down, w.down_bias)
    return out, window, *after


def _forward(inputs: tuple[Any, ...], save: bool, into: State | None = None) -> tuple[Tensor, ...]:
    """out, the state after the last step (in ``into`` if given), and what is saved."""
    x, reset, *state = inputs[: 2 + _NUM_STATES]
    weights, options = inputs[2 + _NUM_STATES : _NUM_TENSORS], inputs[_NUM_TENSORS:]
    B, T, D = x.shape
    heads, taps, hidden = options[:3]
    x, reset = x.contiguous(), contiguous(reset)
    state, weights = [contiguous(s) for s in state], [contiguous(w) for w in weights]
    out = torch.empty_like(x)
    if into is None:
        shape = B, heads, D // heads
        into = State(
            x.new_empty(B, max(taps - 1, 0), D), *(x.new_empty(shape) for _ in range(4))
        )
    size = saved_size(B, T, D, heads, taps, hidden)
    saved = lend_floats(size) if save else x.new_empty(0)
    sizes = _sizes(B, T, D, options)
    pointers = (*weights, *state, x, out, reset, *into, saved if save else None)
    with scratch(4 * _work_size(sizes, save, False)) as work:
        call(_library().xl_slstm_block_forward, _Forward(*sizes, *map(pointer, pointers), work))
    return out, *into, saved


def _sizes(B: int, T: int, D: int, options: tuple[Any, ...]) -> tuple[int, ...]:
    heads, taps, hidden, activation, forget_gate = options[:5]
    kind, exponential = list(ACTIVATIONS).index(activation), forget_gate == "exponential"
    return B, T, D, heads, taps, hidden, kind, int(exponential), num_threads()


def _backward(grads: Grads, inputs: tuple[Any, ...], saved: Tensor) -> list[Tensor]:
    """The gradients of x, of the state if there was one, and of the weights that are there."""
    x, reset, *state = inputs[: 2 + _NUM_STATES]
    weights, options = inputs[2 + _NUM_STATES : _NUM_TENSORS], inputs[_NUM_TENSORS:]
    B, T, D = x.shape
    x, reset = x.contiguous(), contiguous(reset)
    state, weights = [contiguous(s) for s in state], [contiguous(w) for w in weights]
    dout, *dafter = (contiguous(g) for g in grads[:_NUM_OUTPUTS])
    dout = torch.zeros_like(x) if dout is None else dout
    dx = torch.empty_like(x)
    dstate = [None if s is None else torch.empty_like(s) for s in state]
    dweights = [None if w is None else torch.empty_like(w) for w in weights]
    sizes = _sizes(B, T, D, options)
    none = (None,) * _NUM_STATES
    pointers = (
        *(*weights, *state, x, None, reset, *none, saved, None),
        *(dout, *dafter, dx, *dweights, *dstate),
    )
    with scratch(4 * _work_size(sizes, True, True)) as work:
        call(_library().xl_slstm_block_backward, _Backward(*sizes, *map(pointer, pointers), work))
    return [g for g in (dx, *dstate, *dweights) if g is not None]


def _recall(ctx: Any, inputs: Any, rest: Any, grads: Grads, run: Any) -> Grads:
    found = iter(run(grads[:_NUM_OUTPUTS], (*inputs, *ctx.options[:5]), *rest))
    given = (None if name == 1 or x is None else next(found) for name, x in enumerate(inputs))
    return *given, *(None,) * len(ctx.options)


class _Sequence(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        *outputs, saved = _forward(inputs, True)
        keep(ctx, inputs, _NUM_TENSORS, saved)
        return tuple(outputs)

    @staticmethod
    @differentiable(equations, _NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
        return _recall(ctx, inputs, rest, grads, _backward)


def _schema(*parts: str) -> str:
    return f"({', '.join(parts)})"


_INPUTS = [
    "Tensor x",
    "Tensor? reset",
    *(f"Tensor? {name}_0" for name in State._fields),
    *(f"Tensor? w_{name}" for name in Weights._fields),
]
_OPTIONS = ["int heads", "int taps", "int hidden", "str activation", "str forget_gate"]


@refuse_forward_mode
def _sequence(*inputs: Any) -> tuple[Tensor, ...]:
    *inputs, save = inputs  # type: ignore[assignment]
    return _forward(tuple(inputs), save)


sequence_op = torch.library.custom_op(
    "xlstm_rl::native_slstm_block",
    _sequence,
    mutates_args=(),
    schema=_schema(*_INPUTS, *_OPTIONS, "bool save")
    + f" -> ({', '.join(['Tensor'] * (_NUM_OUTPUTS + 1))})",
)
"""out, the state after the last step, and what the backward reads again."""


@sequence_op.register_fake
def _(x: Tensor, *others: Any) -> tuple[Tensor, ...]:
    *_, heads, taps, hidden, _, _, save = others
    B, T, D = x.shape
    states = (x.new_empty((B, heads, D // heads)) for _ in range(4))
    window = x.new_empty((B, max(taps - 1, 0), D))
    size = saved_size(B, T, D, heads, taps, hidden) if save else 0
    return x.new_empty((B, T, D)), window, *states, x.new_empty(size)


def _backward_tensors(*inputs: Any) -> list[Tensor]:
    grads, (saved, *inputs) = inputs[:_NUM_OUTPUTS], inputs[_NUM_OUTPUTS:]  # type: ignore[assignment]
    return _backward(grads, tuple(inputs), saved)


backward_op = torch.library.custom_op(
    "xlstm_rl::native_slstm_block_backward",
    _backward_tensors,
    mutates_args=(),
    schema=_schema(
        *(f"Tensor? d{name}" for name in ("out", *State._fields)),
        "Tensor saved",
        *_INPUTS,
        *_OPTIONS,
    )
    + " -> Tensor[]",
)
"""The gradients of x, of the state if there was one, and of the weights that are there."""


@backward_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    x, _, *others = inputs[_NUM_OUTPUTS + 1 : _NUM_OUTPUTS + 1 + _NUM_TENSORS]
    return [x.new_empty(t.shape) for t in (x, *others) if t is not None]


def _setup_op(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    keep(ctx, inputs, _NUM_TENSORS, *output[_NUM_OUTPUTS:])


@differentiable(equations, _NUM_TENSORS)
def _backward_op(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
    def run(grads: Grads, inputs: Any, saved: Tensor) -> list[Tensor]:
        found: list[Tensor] = backward_op(*grads, saved, *inputs)
        return found

    return _recall(ctx, inputs, rest, grads, run)


sequence_op.register_autograd(_backward_op, setup_context=_setup_op)
