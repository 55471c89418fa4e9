"""The whole sLSTM block in one call of the library: norm to residual, forward and backward."""

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
from xlstm_rl.kernels.layers import ACTIVATIONS
from xlstm_rl.kernels.native.arguments import bytes_for, contiguous, pointer, run, struct
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.slstm import saved_size as cell_saved_size
from xlstm_rl.kernels.native.workspace import lend_floats, scratch
from xlstm_rl.kernels.slstm.block import (
    SLSTMBlockOptions,
    SLSTMBlockWeights,
    State,
    slstm_block,
)

STATE = ("window", "h", "c", "n", "m")
_NUM_OUTPUTS, _FIRST_WEIGHT = 1 + len(STATE), 2 + len(STATE)
_NUM_TENSORS = _FIRST_WEIGHT + len(SLSTMBlockWeights._fields)  # x, reset, the state, the weights
_NUM_INPUTS = _NUM_TENSORS + 3  # heads, activation, forget gate

_SIZES = "B T D H W F activation exponential workers"


def _each(prefix: str, names: tuple[str, ...]) -> str:
    return " ".join(prefix + name for name in names)


_FORWARD = (
    f"{_each('w_', SLSTMBlockWeights._fields)} {_each('before_', STATE)} x out reset "
    f"{_each('after_', STATE)} saved work"
)
Forward = struct("Forward", _SIZES, _FORWARD)
Backward = struct(
    "Backward",
    _SIZES,
    f"{_FORWARD} dout {_each('dafter_', STATE)} dx {_each('dw_', SLSTMBlockWeights._fields)} "
    f"{_each('dbefore_', STATE)} backward_work",
)


def run_slstm_block(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: SLSTMBlockWeights,
    options: SLSTMBlockOptions,
) -> tuple[Tensor, State] | None:
    """Do what `slstm_block` does; ``None``: the tensors are not what C takes them for."""
    if options.is_ablated or not covers(x, reset, state, weights, options.num_heads):
        return None
    conv = weights.conv is not None
    before = (None,) * len(STATE) if state is None else state if conv else (None, *state)
    heads, activation, forget_gate, *_ = options
    inputs = (x, reset, *before, *weights, heads, activation, forget_gate)
    save = wants_gradient(*inputs)
    if torch.compiler.is_compiling():
        outputs = _op(*inputs, save)
    elif save:
        outputs = _Block.apply(*inputs)  # type: ignore[no-untyped-call]
    else:
        outputs = _forward(inputs, False)
    return outputs[0], tuple(outputs[1 if conv else 2 : _NUM_OUTPUTS])


def covers(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: SLSTMBlockWeights,
    heads: int,
) -> bool:
    """Whether all tensors are what C takes them for; where not, torch says what is wrong.

    ``x [B, T, D]`` or ``[B, D]`` is float32 on the CPU.
    """
    D = x.shape[-1]
    if D % heads:
        return False
    size, vector = D // heads, (D,)
    taps = 0 if weights.conv is None else weights.conv.shape[-1]
    hidden = 0 if weights.down is None else weights.down.shape[-1]
    matrices = (4, heads, size, size)
    shapes: tuple[tuple[int, ...], ...] = (
        *(vector, (D, taps), vector, matrices, matrices, (4, heads, size), vector),
        *(vector, (2 * hidden, D), (2 * hidden,), (D, hidden), vector),
        *state_shapes(x, weights, heads),
    )
    if reset is not None and not (
        reset.dtype is torch.bool and reset.is_cpu and reset.shape == x.shape[:-1]
    ):
        return False
    if state is not None and len(state) != len(shapes) - len(weights):
        return False
    for t, shape in zip((*weights, *(state or ())), shapes, strict=False):
        if t is not None and not (t.shape == shape and t.dtype is torch.float32 and t.is_cpu):
            return False
    return True


def state_shapes(x: Tensor, weights: SLSTMBlockWeights, heads: int) -> tuple[tuple[int, ...], ...]:
    """Return those of the window, if there is one, and of h, c, n, m."""
    B, D = x.shape[0], x.shape[-1]
    window = () if weights.conv is None else ((B, weights.conv.shape[1] - 1, D),)
    return *window, *((B, heads, D // heads),) * 4


def sizes_of(
    B: int, T: int, D: int, w: SLSTMBlockWeights, heads: int, activation: str, forget_gate: str
) -> tuple[int, ...]:
    """Return the sizes as `Forward` begins with."""
    taps = 0 if w.conv is None else w.conv.shape[1]
    hidden = 0 if w.down is None else w.down.shape[1]
    kind, exponential = _KINDS[activation], int(forget_gate == "exponential")
    return B, T, D, heads, taps, hidden, kind, exponential, num_threads()


_KINDS = {name: kind for kind, name in enumerate(ACTIVATIONS)}


@functools.lru_cache(1024)
def work_bytes(sizes: tuple[int, ...], saving: bool, backward: bool = False) -> int:
    """Bytes that a call works in; ``saving`` is for the backward."""
    name = "backward_work_bytes" if backward else "work_bytes"
    return bytes_for(f"xl_slstm_block_{name}", Forward(*sizes, saved=int(saving) or None))


def saved_size(B: Any, T: Any, D: int, H: int, W: int, F: int) -> Any:
    """Floats that hold what the backward reads again, of sizes that may be symbols."""
    per_row = 2 * D + 2 + 2 * H
    if W:
        per_row += 2 * D + 1
    if F:
        per_row += D + 2 + 2 * F
    parts = 16 * 32  # each begins at a cache line, and under AddressSanitizer behind a fence
    return B * T * per_row + B + parts + cell_saved_size(B, T, H, D // H)


def _forward(inputs: tuple[Any, ...], save: bool, pooled: bool = True) -> tuple[Tensor, ...]:
    """``out``, the state behind it (of no convolution, a window of no rows) and what is saved."""
    (x, reset, *before), weights, sizes = _arguments(inputs)
    B, T, D, H, W, F = sizes[:6]
    out = torch.empty_like(x)
    after = [x.new_empty(B, max(W - 1, 0), D), *(x.new_empty(B, H, D // H) for _ in range(4))]
    size = saved_size(B, T, D, H, W, F) if save else 0
    saved = lend_floats(size) if save and pooled else x.new_zeros(size)  # no gaps in an op's output
    given = (*weights, *before, x, out, reset, *after, saved if save else None)
    with scratch(work_bytes(sizes, save)) as work:
        run("xl_slstm_block_forward", Forward(*sizes, *map(pointer, given), work))
    return out, *after, saved


def _backward(grads: Grads, saved: Tensor, inputs: tuple[Any, ...]) -> list[Tensor]:
    """The gradients of x, of the state if there was one, and of the weights that there are."""
    (x, reset, *before), weights, sizes = _arguments(inputs)
    dout, *dafter = (contiguous(g) for g in grads[:_NUM_OUTPUTS])
    dout = torch.zeros_like(x) if dout is None else dout
    found = [None if t is None else torch.empty_like(t) for t in (x, *before, *weights)]
    dx, dbefore, dweights = found[0], found[1:_NUM_OUTPUTS], found[_NUM_OUTPUTS:]
    none = (None,) * len(STATE)
    forward = (*weights, *before, x, None, reset, *none, saved, None)
    pointers = map(pointer, (*forward, dout, *dafter, dx, *dweights, *dbefore))
    with scratch(work_bytes(sizes, True, True)) as work:
        run("xl_slstm_block_backward", Backward(*sizes, *pointers, work))
    return [g for g in found if g is not None]


def _arguments(inputs: tuple[Any, ...]) -> tuple[Any, SLSTMBlockWeights, tuple[int, ...]]:
    """x, reset and the state; the weights; the sizes: all as C takes them."""
    held = [contiguous(t) for t in inputs[:_NUM_TENSORS]]
    weights = SLSTMBlockWeights(*held[_FIRST_WEIGHT:])  # type: ignore[arg-type]
    x = held[0]
    assert x is not None
    B, T, D = x.shape
    return (
        held[:_FIRST_WEIGHT],
        weights,
        sizes_of(B, T, D, weights, *inputs[_NUM_TENSORS:_NUM_INPUTS]),
    )


def _equations(*inputs: Any) -> tuple[Tensor, ...]:
    """All outputs from all inputs, in operations that torch differentiates."""
    x, reset, window, *rest, _, _, _ = inputs[:_NUM_INPUTS]
    state, weights = rest[:4], SLSTMBlockWeights(*rest[4:])
    conv = weights.conv is not None
    before = None if state[0] is None else (window, *state) if conv else tuple(state)
    heads, activation, forget_gate = inputs[_NUM_TENSORS:_NUM_INPUTS]
    options = SLSTMBlockOptions(heads, activation, forget_gate, "torch")
    out, after = slstm_block(x, reset, before, weights, options)
    return out, *(after if conv else (x.new_empty(x.shape[0], 0, x.shape[2]), *after))


def _recall(ctx: Any, inputs: Any, rest: Any, grads: Grads, backward: Any) -> Grads:
    each = iter(backward(grads[:_NUM_OUTPUTS], *rest, (*inputs, *ctx.options[:3])))
    found = (None if n == 1 or x is None else next(each) for n, x in enumerate(inputs))
    return *found, *(None,) * len(ctx.options)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        *outputs, saved = _forward(inputs, True)
        keep(ctx, inputs, _NUM_TENSORS, saved)
        return tuple(outputs)

    @staticmethod
    @differentiable(_equations, _NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
        return _recall(ctx, inputs, rest, grads, _backward)


_INPUTS = ", ".join(
    (
        *("Tensor x", "Tensor? reset", *(f"Tensor? {name}_0" for name in STATE)),
        *(f"Tensor? w_{name}" for name in SLSTMBlockWeights._fields),
        *("int heads", "str activation", "str forget_gate"),
    )
)


@refuse_forward_mode
def _run_op(*inputs: Any) -> tuple[Tensor, ...]:
    return _forward(inputs[:-1], inputs[-1], pooled=False)


_op = torch.library.custom_op(
    "xlstm_rl::native_slstm_block",
    _run_op,
    mutates_args=(),
    schema=f"({_INPUTS}, bool save) -> ({', '.join(['Tensor'] * (_NUM_OUTPUTS + 1))})",
)
"""``out``, the state behind it and what the backward reads again."""


@_op.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    x, heads = inputs[0], inputs[_NUM_TENSORS]
    w = SLSTMBlockWeights(*inputs[_FIRST_WEIGHT:_NUM_TENSORS])
    taps = 0 if w.conv is None else w.conv.shape[1]
    hidden = 0 if w.down is None else w.down.shape[1]
    B, T, D = x.shape
    size = saved_size(B, T, D, heads, taps, hidden) if inputs[-1] else 0
    states = (x.new_empty((B, heads, D // heads)) for _ in range(4))
    window = x.new_empty((B, max(taps - 1, 0), D))
    return x.new_empty((B, T, D)), window, *states, x.new_empty(size)


def _run_backward_op(*inputs: Any) -> list[Tensor]:
    return _backward(inputs[:_NUM_OUTPUTS], inputs[_NUM_OUTPUTS], inputs[_NUM_OUTPUTS + 1 :])


_backward_op = torch.library.custom_op(
    "xlstm_rl::native_slstm_block_backward",
    _run_backward_op,
    mutates_args=(),
    schema=f"({', '.join(f'Tensor? d{name}' for name in ('out', *STATE))}, Tensor saved, {_INPUTS})"
    " -> Tensor[]",
)
"""The gradients of x, of the state if there was one, and of the weights that there are."""


@_backward_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    x, _, *others = inputs[_NUM_OUTPUTS + 1 : _NUM_OUTPUTS + 1 + _NUM_TENSORS]
    return [x.new_empty(t.shape) for t in (x, *others) if t is not None]


def _setup_op(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    keep(ctx, inputs, _NUM_TENSORS, *output[_NUM_OUTPUTS:])


@differentiable(_equations, _NUM_TENSORS)
def _backward_of_op(ctx: Any, inputs: Grads, rest: Grads, *grads: Tensor | None) -> Grads:
    def backward(grads: Grads, saved: Tensor, inputs: Any) -> list[Tensor]:
        found: list[Tensor] = _backward_op(*grads, saved, *inputs)
        return found

    return _recall(ctx, inputs, rest, grads, backward)


_op.register_autograd(_backward_of_op, setup_context=_setup_op)
