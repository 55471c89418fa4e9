"""The whole mLSTM block in one call of the library: norm to residual, forward and backward."""

from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import (
    Grads,
    differentiable,
    keep,
    pull_back,
    refuse_forward_mode,
    wants_gradient,
)
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
_ROWS = 512  # of a call without a backward


def _each(prefix: str, names: tuple[str, ...]) -> str:
    return " ".join(prefix + name for name in names)


Arguments = struct(
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
    inner, S = w.skip.shape[0], w.qkv.shape[-1]
    K, taps = inner // heads, 0 if w.conv is None else w.conv.shape[-1]
    shapes: tuple[tuple[int, ...], ...] = (
        *(
            (D,),
            (2 * inner, D),
            (2 * inner,),
            (inner, taps),
            (inner,),
            (3 * inner // S, S, S),
            (3 * inner,),
        ),
        *((2 * heads, 3 * inner), (2 * heads,), (inner,), (inner,), (D, inner), (D,)),
    )
    tensors: tuple[Tensor | None, ...] = w
    if state is not None:
        tensors += state
        shapes += ((B, taps - 1, inner),) * (taps > 0) + (
            (B, heads, K, K),
            (B, heads, K),
            (B, heads),
        )
        if len(tensors) != len(shapes):
            return False
    if reset is not None and not (
        reset.dtype is torch.bool and reset.is_cpu and reset.shape == x.shape[:-1]
    ):
        return False
    for t, shape in zip(tensors, shapes, strict=True):
        if t is not None and not (t.dtype is torch.float32 and t.shape == shape and t.is_cpu):
            return False
    return heads * K == inner and inner % S == 0


def run_mlstm_block(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: MLSTMBlockWeights,
    options: MLSTMBlockOptions,
) -> tuple[Tensor, State] | None:
    """Do what `mlstm_block` does; ``None``: that has to do it.

    Because a tensor is not what C takes it for, or because something is not finite.
    """
    if options.is_ablated or not covers(x, reset, state, weights, options.num_heads):
        return None
    conv = weights.conv is not None
    before = (None,) * 4 if state is None else state if conv else (None, *state)
    inputs = (x, reset, *before, *weights, options.num_heads, options.forget_gate)
    if torch.compiler.is_compiling():
        outputs = _op(*inputs)
        return outputs[0], tuple(outputs[1:])
    try:
        if wants_gradient(*inputs):
            out, *after = _Block.apply(*inputs)  # type: ignore[no-untyped-call]
        else:
            out, *after = _forward_alone(inputs)
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


def _outputs(sizes: tuple[int, ...], x: Tensor) -> tuple[Tensor | None, ...]:
    """Room for ``out`` and for the state behind it, of no convolution ``None``."""
    B, T, D, inner, H, W = sizes[:6]
    K = inner // H
    after = [x.new_empty(s) for s in ((B, H, K, K), (B, H, K), (B, H))]
    return x.new_empty(B, T, D), x.new_empty(B, W - 1, inner) if W else None, *after


def _forward(inputs: tuple[Any, ...]) -> tuple[tuple[Tensor | None, ...], Tensor]:
    """``out``, the state behind it and what the backward needs."""
    sizes, held = _sizes(inputs)
    outputs = _outputs(sizes, inputs[0])
    arguments = Arguments(*sizes, *map(pointer, (*_reordered(held), *outputs)))
    saved = lend_tensor(bytes_for("xl_mlstm_block_saved_bytes", arguments))
    _run_forward(arguments, saved.data_ptr())
    return outputs, saved


def _forward_alone(inputs: tuple[Any, ...]) -> tuple[Tensor | None, ...]:
    """``out`` and the state behind it, some sequences at a time.

    What a backward would need then stays in the cache, and takes no more memory than theirs.
    """
    sizes, held = _sizes(inputs)
    B, T, workers = sizes[0], sizes[1], sizes[-1]
    outputs = _outputs(sizes, inputs[0])
    at_once = max(workers, _ROWS // T) if T else B
    for first in range(0, B, at_once) or (0,):
        rows = slice(first, first + at_once)
        # the weights stand between what has a row for each sequence
        before = [t if t is None else t[rows] for t in held[:_FIRST_WEIGHT]]
        after = [t if t is None else t[rows] for t in outputs]
        given = (*_reordered([*before, *held[_FIRST_WEIGHT:]]), *after)
        arguments = Arguments(min(at_once, B - first), *sizes[1:], *map(pointer, given))
        with scratch(bytes_for("xl_mlstm_block_saved_bytes", arguments)) as saved:
            _run_forward(arguments, saved)
    return outputs


def _run_forward(arguments: Any, saved: int) -> None:
    arguments.saved = saved
    with scratch(bytes_for("xl_mlstm_block_forward_bytes", arguments)) as work:
        arguments.work = work
        if run("xl_mlstm_block_forward", arguments):
            raise _NotFiniteError


def _backward(inputs: tuple[Any, ...], saved: Any, grads: Grads) -> Grads | None:
    """The gradients of all inputs; ``None`` where one of them is not finite."""
    sizes, held = _sizes(inputs)
    make = torch.empty_like if sizes[0] else torch.zeros_like
    # of the state all or none; of no reset, whose dtype has no gradients
    wanted = [t is not None and t.requires_grad for t in inputs[:_NUM_TENSORS]]
    wanted[0] = True
    wanted[2:_FIRST_WEIGHT] = [any(wanted[2:_FIRST_WEIGHT])] * len(STATE)
    found = [
        make(t) if wish and t is not None else None for wish, t in zip(wanted, held, strict=True)
    ]
    dout, *dafter = map(contiguous, grads)
    dout = torch.zeros_like(inputs[0]) if dout is None else dout
    dx, _, *others = found
    dbefore, dweights = others[: len(STATE)], others[len(STATE) :]
    none = (None,) * (1 + len(STATE))
    given = (*_reordered(held), *none, dout, *dafter, dx, *dweights, *dbefore)
    arguments = Arguments(*sizes, *map(pointer, given))
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


_INPUTS = ", ".join(
    (
        *("Tensor x", "Tensor? reset", *(f"Tensor? {name}_0" for name in STATE)),
        *(f"Tensor? w_{name}" for name in MLSTMBlockWeights._fields),
        *("int num_heads", "str forget_gate"),
    )
)


@refuse_forward_mode
def _run_op(*inputs: Any) -> list[Tensor]:
    try:
        outputs = _forward_alone(inputs)
    except _NotFiniteError:
        outputs = _equations(*inputs)
    return [t for t in outputs if t is not None]


_op = torch.library.custom_op(
    "xlstm_rl::native_mlstm_block",
    _run_op,
    mutates_args=(),
    schema=f"({_INPUTS}) -> Tensor[]",
)
"""``out`` and the state behind it."""


@_op.register_fake
def _(*inputs: Any) -> list[Tensor]:
    x, H = inputs[0], inputs[_NUM_TENSORS]
    w = MLSTMBlockWeights(*inputs[_FIRST_WEIGHT:_NUM_TENSORS])
    B, inner = x.shape[0], w.skip.shape[0]
    shapes: list[Any] = [(B, H, inner // H, inner // H), (B, H, inner // H), (B, H)]
    if w.conv is not None:
        shapes.insert(0, (B, w.conv.shape[1] - 1, inner))
    return [x.new_empty(x.shape), *(x.new_empty(shape) for shape in shapes)]


@refuse_forward_mode
def _run_backward_op(grads: list[Tensor], *inputs: Any) -> list[Tensor]:
    """Compiled code keeps the inputs alone, and the forward runs once more."""
    # every weight's gradient: which are wanted, the graph around the op knows
    leaves = tuple(
        t.detach().requires_grad_() if isinstance(t, Tensor) and t.is_floating_point() else t
        for t in inputs
    )
    conv = inputs[_FIRST_WEIGHT + MLSTMBlockWeights._fields.index("conv")]
    given: Grads = tuple(grads) if conv is not None else (grads[0], None, *grads[1:])
    try:
        found = _backward(leaves, _forward(leaves)[1], given)
    except _NotFiniteError:
        found = None
    if found is None:
        found = pull_back(_equations, leaves[_NUM_TENSORS:], leaves[:_NUM_TENSORS], given)
    return [g for g in found if g is not None]


_backward_op = torch.library.custom_op(
    "xlstm_rl::native_mlstm_block_backward",
    _run_backward_op,
    mutates_args=(),
    schema=f"(Tensor[] grads, {_INPUTS}) -> Tensor[]",
)
"""The gradients of x, of the state if there was one, and of the weights that there are."""


@_backward_op.register_fake
def _(grads: list[Tensor], *inputs: Any) -> list[Tensor]:
    x, _, *others = inputs[:_NUM_TENSORS]
    return [x.new_empty(t.shape) for t in (x, *others) if t is not None]


def _setup_op(ctx: Any, inputs: tuple[Any, ...], output: list[Tensor]) -> None:
    ctx.save_for_backward(*inputs[:_NUM_TENSORS])
    ctx.options = inputs[_NUM_TENSORS:]


def _backward_of_op(ctx: Any, grads: list[Tensor]) -> Grads:
    inputs = ctx.saved_tensors
    each = iter(_backward_op(grads, *inputs, *ctx.options))
    found = (None if n == 1 or t is None else next(each) for n, t in enumerate(inputs))
    return *found, *(None,) * len(ctx.options)


_op.register_autograd(_backward_of_op, setup_context=_setup_op)
