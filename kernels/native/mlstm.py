"""The mLSTM cell in the library: sequences, forward and backward, and steps."""

import ctypes
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, pull_back, wants_gradient
from xlstm_rl.kernels.mlstm import reference
from xlstm_rl.kernels.mlstm.ops import NUM_TENSORS, equations
from xlstm_rl.kernels.native.library import call, num_threads, the_library
from xlstm_rl.kernels.native.workspace import lend_tensor, scratch
from xlstm_rl.kernels.types import MLSTMState

_SIZES = ("B", "T", "H", "K", "V", "exponential", "workers")
_INPUTS = ("q", "k", "v", "i", "f", "reset", "C", "n", "m")
_OUTPUTS = ("h", "C_1", "n_1", "m_1")
_GRADS_IN = ("dh", "dC_1", "dn_1", "dm_1")
_GRADS_OUT = ("dq", "dk", "dv", "di", "df", "dC", "dn", "dm")


class _Arguments(ctypes.Structure):
    """``mlstm_arguments`` of ``src/mlstm.c``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _SIZES),
        *((n, ctypes.c_void_p) for n in (*_INPUTS, *_OUTPUTS, *_GRADS_IN, *_GRADS_OUT)),
        *((name, ctypes.c_void_p) for name in ("saved", "work")),
    )


class _NotFiniteError(Exception):
    """A result is not finite: what then stays where, the reference knows."""


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
) -> tuple[Tensor, MLSTMState] | None:
    """The whole sequence, in chunks of a length of its own; ``None``: something is not finite."""
    C_0, n_0, m_0 = (None, None, None) if state is None else state
    inputs = (q, k, v, i, f, reset, C_0, n_0, m_0, chunk_size, forget_gate)
    try:
        if wants_gradient(*inputs):
            h, *after = _Cell.apply(*inputs)  # type: ignore[no-untyped-call]
        else:
            (h, *after), _ = _forward(inputs)
    except _NotFiniteError:
        return None
    return h, tuple(after)  # type: ignore[return-value]


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
    """One step; with gradients it is the reference's, differentiated by autograd."""
    if wants_gradient(q, k, v, i, f, *(state or ())):
        return reference.mlstm_step(q, k, v, i, f, reset, state, forget_gate)
    (B, H, K), V = q.shape, v.shape[-1]
    held = _contiguous(q, k, v, i, f, reset, *(state or (None,) * 3))
    h = v.new_empty(v.shape)
    old: Any = held[-3:]
    writes = inplace and state is not None
    after = old if writes else _new_state(q, B, H, K, V)
    sizes = (B, 0, H, K, V, forget_gate == "exponential", 1)
    arguments = _Arguments(*sizes, *_pointers((*held, h, *after)))
    call(the_library().xl_mlstm_step, arguments)
    return h, after


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        outputs, saved = _forward(inputs)
        keep(ctx, inputs, NUM_TENSORS, outputs[0], saved)
        return outputs

    @staticmethod
    @differentiable(equations, NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, rest: Any, *grads: Tensor | None) -> Grads:
        found = _backward((*inputs, *ctx.options), *rest, grads)
        if found is None:
            found = pull_back(equations, ctx.options, inputs, grads)
        return *found, *(None,) * len(ctx.options)


def _forward(inputs: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """``h``, the state behind it and what the backward needs."""
    sizes, held = _sizes(inputs)
    q, v = held[0], held[2]
    h = v.new_empty(v.shape)
    outputs = (h, *_new_state(q, q.shape[0], *q.shape[2:], v.shape[-1]))
    arguments = _Arguments(*sizes, *_pointers((*held, *outputs)))
    loaded = the_library()
    saved = lend_tensor(loaded.xl_mlstm_saved_bytes(ctypes.byref(arguments)))
    arguments.saved = saved.data_ptr()
    if _run(loaded.xl_mlstm_forward, arguments):
        raise _NotFiniteError
    return outputs, saved


def _backward(inputs: tuple[Any, ...], h: Tensor, saved: Tensor, grads: Any) -> Grads | None:
    """The gradients of all inputs; ``None`` where one of them is not finite."""
    sizes, held = _sizes(inputs)
    given = _contiguous(*grads)
    found = [None if t is None else torch.empty_like(t) for t in held]
    outs = (*found[:5], *found[6:])
    arguments = _Arguments(*sizes, *_pointers((*held, h, None, None, None, *given, *outs)))
    arguments.saved = saved.data_ptr()
    if _run(the_library().xl_mlstm_backward, arguments):
        return None
    return *found[:5], None, *found[6:]


def _run(function: Any, arguments: Any) -> int:
    size = the_library().xl_mlstm_work_bytes(ctypes.byref(arguments))
    with scratch(size) as work:
        arguments.work = work
        return call(function, arguments)


def _sizes(inputs: tuple[Any, ...]) -> tuple[tuple[int, ...], list[Any]]:
    """The sizes as C takes them, and the contiguous tensors that have to outlive the call."""
    held = _contiguous(*inputs[:NUM_TENSORS])
    (B, T, H, K), V = held[0].shape, held[2].shape[-1]
    return (B, T, H, K, V, inputs[-1] == "exponential", num_threads()), held


def _new_state(q: Tensor, B: int, H: int, K: int, V: int) -> MLSTMState:
    return q.new_empty(B, H, K, V), q.new_empty(B, H, K), q.new_empty(B, H)


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if t is None else t.contiguous() for t in tensors]


def _pointers(tensors: Any) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]
