"""Log-probability and entropy of choices in one call, and one back."""

from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, wants_gradient
from xlstm_rl.kernels.native.arguments import contiguous, pointer, run, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.held import is_plain

_Arguments = struct(
    "categorical_arguments",
    "rows choices",
    "logits action log_p log_prob entropy dlog_prob dentropy dlogits",
)


def log_prob_and_entropy(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return log-probability and entropy ``[...]``.

    Args:
        logits: ``[..., n]``.
        action: int64 ``[...]``.

    Returns:
        ``None``: torch has to do it, or to say what is wrong.
    """
    if torch.compiler.is_compiling():
        return None
    if not (takes_native("auto", logits) and logits.dim() and logits.shape[-1]):
        return None
    if not (is_plain(logits, logits.shape) and is_plain(action, logits.shape[:-1], torch.int64)):
        return None
    if not wants_gradient(logits):  # nobody waits for it
        return None
    try:
        found: tuple[Tensor, Tensor] = _Categorical.apply(logits, action)  # type: ignore[no-untyped-call]
    except _OutOfRangeError:
        return None
    return found


class _OutOfRangeError(Exception):
    """An action is none of the choices."""


def equations(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Do the same in operations that torch differentiates, to any order."""
    log_p = logits.log_softmax(-1)
    log_prob = log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return log_prob, -(log_p.exp() * log_p).sum(-1)


class _Categorical(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        log_p = torch.empty_like(logits)
        log_prob, entropy = torch.empty(action.shape), torch.empty(action.shape)
        if _run("forward", logits, action, log_p, log_prob, entropy):
            raise _OutOfRangeError
        keep(ctx, (logits, action), 2, log_p, entropy)
        return log_prob, entropy

    @staticmethod
    @differentiable(equations, 2)
    def backward(ctx: Any, inputs: Any, rest: Any, *grads: Tensor | None) -> Grads:
        (logits, action), (log_p, entropy) = inputs, rest
        found = torch.empty_like(log_p)
        held = [contiguous(grad) for grad in grads]
        _run("backward", logits, action, log_p, None, entropy, *held, found)
        return found, None


def _run(name: str, logits: Tensor, action: Tensor, *others: Tensor | None) -> int:
    pointers = map(pointer, (logits, action, *others))
    return run(f"xl_categorical_{name}", _Arguments(action.numel(), logits.shape[-1], *pointers))
