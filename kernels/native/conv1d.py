"""The causal convolution in the library: sequences, forward and backward, and steps."""

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, wants_gradient
from xlstm_rl.kernels.conv1d import reference
from xlstm_rl.kernels.native.library import call, num_threads, the_library
from xlstm_rl.kernels.native.workspace import scratch

_SIZES = ("B", "T", "C", "W", "silu", "workers")
_INPUTS = ("x", "weight", "bias", "reset", "state")
_NUM_TENSORS = len(_INPUTS)


class _Arguments(ctypes.Structure):
    """``conv1d_arguments`` of ``src/conv1d.c``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in _SIZES),
        *((name, ctypes.c_void_p) for name in _INPUTS),
        *((name, ctypes.c_void_p) for name in ("y", "state_1", "dy", "dstate_1")),
        *((name, ctypes.c_void_p) for name in ("dx", "dweight", "dbias", "dstate", "work")),
    )


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """The whole sequence, activation included."""
    inputs = (x, weight, bias, reset, state, activation)
    if wants_gradient(*inputs):
        y, end = _Convolution.apply(*inputs)  # type: ignore[no-untyped-call]
        return y, end
    return _forward(inputs)


def causal_conv1d_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
    inplace: bool,
) -> tuple[Tensor, Tensor]:
    """One step, activation included; with gradients the reference's, differentiated by autograd."""
    if wants_gradient(x, weight, bias, state):
        y, end = reference.causal_conv1d_step(x, weight, bias, reset, state)
        return (F.silu(y) if activation == "silu" else y), end
    held = _contiguous(x, weight, bias, reset, state)
    (B, C), W = x.shape, weight.shape[1]
    y = held[0].new_empty(B, C)
    after = held[4] if inplace and state is not None else y.new_empty(B, W - 1, C)
    sizes = (B, 1, C, W, activation == "silu", 1)
    _run("step", _Arguments(*sizes, *_pointers((*held, y, after))))
    return y, after


def _equations(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor]:
    y, end = reference.causal_conv1d(x, weight, bias, reset, state)
    return (F.silu(y) if activation == "silu" else y), end


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        keep(ctx, inputs, _NUM_TENSORS)
        return _forward(inputs)

    @staticmethod
    @differentiable(_equations, _NUM_TENSORS)
    def backward(ctx: Any, inputs: Any, rest: Grads, *grads: Tensor | None) -> Grads:
        sizes, held = _sizes((*inputs, *ctx.options))
        given = _contiguous(*grads)
        make = torch.empty_like if sizes[0] else torch.zeros_like
        dx, dweight, dbias, _, dstate = (None if t is None else make(t) for t in held)
        out = (None, None, *given, dx, dweight, dbias, dstate)
        _run("backward", _Arguments(*sizes, *_pointers((*held, *out))))
        return dx, dweight, dbias, None, dstate, None


def _forward(inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    sizes, held = _sizes(inputs)
    x = held[0]
    y, end = torch.empty_like(x), x.new_empty(x.shape[0], sizes[3] - 1, x.shape[2])
    _run("forward", _Arguments(*sizes, *_pointers((*held, y, end))))
    return y, end


def _sizes(inputs: tuple[Any, ...]) -> tuple[tuple[int, ...], list[Any]]:
    """The sizes as C takes them, and the contiguous tensors that have to outlive the call."""
    held = _contiguous(*inputs[:_NUM_TENSORS])
    sizes = (*held[0].shape, held[1].shape[1], inputs[-1] == "silu", num_threads())
    return sizes, held


def _run(name: str, arguments: Any) -> None:
    loaded = the_library()
    with scratch(loaded.xl_conv1d_bytes(ctypes.byref(arguments))) as work:
        arguments.work = work
        call(getattr(loaded, f"xl_conv1d_{name}"), arguments)


def _contiguous(*tensors: Tensor | None) -> list[Any]:
    return [None if t is None else t.contiguous() for t in tensors]


def _pointers(tensors: Any) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]
