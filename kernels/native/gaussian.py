"""What a loss asks of independent normals: one call for all rows, and one back."""

import ctypes
import functools
import math
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, wants_gradient
from xlstm_rl.kernels.native.arguments import contiguous, empty, pointer, run, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.held import is_plain

Spread = tuple[float, float, float]
"""What is added to the log standard deviations, and between what they are held then.

In the order of the C code."""

LOG_SQRT_2PI = 0.5 * math.log(2.0 * math.pi)

_Arguments = struct(
    "gaussian_arguments",
    "rows numbers",
    "params action options log_prob entropy dlog_prob dentropy dparams",
)


def number_terms(params: Tensor, action: Tensor, spread: Spread) -> tuple[Tensor, Tensor] | None:
    """Return log-density and entropy ``[...]`` of actions, to be differentiated.

    Args:
        params: means, then log standard deviations, ``[..., 2A]``.
        action: ``[..., A]``.
        spread: of the log standard deviations.

    Returns:
        ``None``: torch has to do it.
    """
    if not _fits(params, action) or action.requires_grad or not wants_gradient(params):
        return None
    found: tuple[Tensor, Tensor] = _Gaussian.apply(params, action, spread)  # type: ignore[no-untyped-call]
    return found


def equations(params: Tensor, action: Tensor, spread: Spread) -> tuple[Tensor, Tensor]:
    """Return both in operations that torch differentiates, to any order."""
    shift, least, most = spread
    mean, log_std = params.chunk(2, -1)
    log_std = (log_std + shift if shift else log_std).clamp(least, most)
    z = (action - mean) * (-log_std).exp()
    log_prob = (-0.5 * z.square() - log_std - LOG_SQRT_2PI).sum(-1)
    return log_prob, (log_std + (0.5 + LOG_SQRT_2PI)).sum(-1)


def _fits(params: Tensor, action: Tensor) -> bool:
    if torch.compiler.is_compiling() or not takes_native("auto", params):
        return False
    if not params.dim() or params.shape[-1] % 2 or not is_plain(params, params.shape):
        return False
    return is_plain(action, (*params.shape[:-1], params.shape[-1] // 2))


class _Gaussian(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, params: Tensor, action: Tensor, spread: Spread) -> tuple[Tensor, Tensor]:
        keep(ctx, (params, action, spread), 2)
        return _forward(params, action, spread)

    @staticmethod
    @differentiable(equations, 2)
    def backward(ctx: Any, inputs: Any, rest: Any, *grads: Tensor | None) -> Grads:
        return _backward(*inputs, *ctx.options, *grads), None, None


def _forward(params: Tensor, action: Tensor, spread: Spread) -> tuple[Tensor, Tensor]:
    terms = empty(*params.shape[:-1]), empty(*params.shape[:-1])
    _run("forward", params, action, spread, *terms)
    return terms


def _backward(params: Tensor, action: Tensor, spread: Spread, *grads: Tensor | None) -> Tensor:
    found = torch.empty_like(params)
    held = [contiguous(grad) for grad in grads]
    _run("backward", params, action, spread, None, None, *held, found)
    return found


def _run(name: str, params: Tensor, action: Tensor, spread: Spread, *others: Tensor | None) -> None:
    numbers = params.shape[-1] // 2
    arguments = _Arguments(math.prod(params.shape[:-1]), numbers, pointer(params), pointer(action))
    options = floats(spread)
    arguments.options = ctypes.addressof(options)
    names = ("log_prob", "entropy", "dlog_prob", "dentropy", "dparams")
    for field, tensor in zip(names, others, strict=False):
        setattr(arguments, field, pointer(tensor))
    run(f"xl_gaussian_{name}", arguments)


@functools.cache
def floats(spread: Spread) -> Any:
    """Return them as C reads them."""
    return (ctypes.c_float * 3)(*spread)
