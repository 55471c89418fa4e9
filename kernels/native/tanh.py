"""tanh: torch's takes as long as a linear layer of width 128 in front of it, this one a quarter."""

from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import wants_gradient
from xlstm_rl.kernels.native.arguments import run, struct
from xlstm_rl.kernels.native.choose import takes_native

_Arguments = struct("tanh_arguments", "count", "x y")


def tanh(x: Tensor) -> Tensor:
    """Return tanh of a tensor of any shape, natively where that runs and by torch elsewhere."""
    if torch.compiler.is_compiling() or not takes_native("auto", x):
        return torch.tanh(x)
    if wants_gradient(x):
        y: Tensor = _Tanh.apply(x)  # type: ignore[no-untyped-call]
        return y
    return _run(x)


def _run(x: Tensor) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x)
    if run("xl_tanh", _Arguments(x.numel(), x.data_ptr(), y.data_ptr())):
        raise RuntimeError(f"tanh of {x.numel()} numbers: there are too many for one call")
    return y


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        y = _run(x)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (y,) = ctx.saved_tensors
        return torch.ops.aten.tanh_backward(grad, y)
