"""Linear layers in a row, each with its activation, in one call: encoders and heads while training.

In torch a layer of width 128 takes twice as long as its products: a graph of its own for product,
sum and activation, and passes over memory for each.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, wants_gradient
from xlstm_rl.kernels.native.arguments import bytes_for, pointer, run, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.workspace import scratch

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "tanh": torch.tanh,
    "relu": torch.relu,
}
"""In the order of the C code."""

Layer = tuple[Tensor, Tensor | None, str]
"""Weight `[outputs, inputs]`, bias `[outputs]`, name of the activation."""

NUMBERS = {name: number for number, name in enumerate(ACTIVATIONS)}
LayerArguments = struct("dense_layer", "inputs outputs activation", "weight bias y dweight dbias")
Arguments = struct("dense_arguments", "R count workers", "x dy dx layers work")


def run_layers(x: Tensor, layers: Sequence[Layer]) -> Tensor | None:
    """Return what comes out of the last layer, ``[..., outputs]``; ``None``: torch has to do it.

    Args:
        x: ``[..., inputs]``.
        layers: at least one.
    """
    if torch.compiler.is_compiling() or not takes_native("auto", x, whole_block=True):
        return None
    width = x.shape[-1] if x.dim() else 0
    tensors: list[Tensor | None] = []
    for weight, bias, activation in layers:
        if activation not in NUMBERS or not _is_plain(weight, (weight.shape[0], width)):
            return None
        width = weight.shape[0]
        if bias is not None and not _is_plain(bias, (width,)):
            return None
        tensors += (weight, bias)
    if not width:
        return None
    names = tuple(activation for _, _, activation in layers)
    if wants_gradient(x, *tensors):
        y: Tensor = _Dense.apply(x, *tensors, names)  # type: ignore[no-untyped-call]
        return y
    return _forward(x.contiguous(), tensors, names)[-1]


def _is_plain(tensor: Tensor, shape: tuple[int, ...]) -> bool:
    return (
        tensor.shape == shape
        and tensor.dtype is torch.float32
        and tensor.is_cpu
        and tensor.is_contiguous()
    )


class _Dense(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        x, *tensors = inputs[:-1]
        outputs = _forward(x.contiguous(), tensors, inputs[-1])
        keep(ctx, inputs, len(inputs) - 1, *outputs)
        return outputs[-1]

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None) -> Any:
        if grad is None:
            return (None,) * (2 + 2 * len(ctx.options[0]))
        return _backward_of(1 + 2 * len(ctx.options[0]))(ctx, grad)


@functools.cache
def _backward_of(num_tensors: int) -> Callable[..., Grads]:
    made: Callable[..., Grads] = differentiable(_equations, num_tensors)(_backward)
    return made


def _equations(*inputs: Any) -> tuple[Tensor | None, ...]:
    """The last layer's output in operations that torch differentiates."""
    x, *tensors = inputs[:-1]
    for weight, bias, name in zip(tensors[::2], tensors[1::2], inputs[-1], strict=True):
        x = ACTIVATIONS[name](torch.nn.functional.linear(x, weight, bias))
    return (x,)


def _arguments(
    x: Tensor,
    tensors: Sequence[Tensor | None],
    names: Sequence[str],
    outputs: Sequence[Tensor | None],
    dtensors: Sequence[Tensor | None] = (),
) -> tuple[Any, Any]:
    """Return the struct and what it points to; `dtensors`: the gradients of weights and biases."""
    where = [*map(pointer, tensors)]
    back = [*map(pointer, dtensors)] or [None] * len(where)
    layers = (LayerArguments * len(names))()
    inputs = x.shape[-1]
    rows = x.numel() // inputs
    for n, (name, y) in enumerate(zip(names, outputs, strict=True)):
        assert y is not None
        width = y.shape[-1]
        w, b = 2 * n, 2 * n + 1
        layers[n] = (
            *(inputs, width, NUMBERS[name]),
            *(where[w], where[b], y.data_ptr(), back[w], back[b]),
        )
        inputs = width
    arguments = Arguments(rows, len(names), num_threads(), x.data_ptr())
    arguments.layers = ctypes.addressof(layers)
    return arguments, layers


def _forward(x: Tensor, tensors: Sequence[Tensor | None], names: tuple[str, ...]) -> list[Tensor]:
    """Return the output of every layer for a contiguous x."""
    lead = x.shape[:-1]
    outputs = [x.new_empty(*lead, len(t)) for t in tensors[::2] if t is not None]
    arguments, _held = _arguments(x, tensors, names, outputs)
    with scratch(bytes_for("xl_dense_forward_bytes", arguments)) as work:
        arguments.work = work
        run("xl_dense_forward", arguments)
    return outputs


def _backward(ctx: Any, inputs: Grads, rest: Grads, grad: Tensor) -> Grads:
    (names,) = ctx.options
    x, *tensors = inputs
    assert x is not None
    x = x.contiguous()
    make = torch.empty_like if x.numel() else torch.zeros_like
    found = [
        make(t) if t is not None and wish else None
        for t, wish in zip((x, *tensors), ctx.needs_input_grad, strict=False)
    ]
    if not x.numel():
        return *found, None
    grad = grad.contiguous()
    arguments, _held = _arguments(x, tensors, names, rest, found[1:])
    arguments.dy, arguments.dx = grad.data_ptr(), pointer(found[0])
    with scratch(bytes_for("xl_dense_backward_bytes", arguments)) as work:
        arguments.work = work
        run("xl_dense_backward", arguments)
    return *found, None
