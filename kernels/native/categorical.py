"""What a loss asks of choices: one call for all rows, and one back."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, wants_gradient
from xlstm_rl.kernels.native.arguments import contiguous, pointer, run, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.held import is_plain
from xlstm_rl.kernels.native.terms import LossPass, Terms

_Arguments = struct(
    "categorical_arguments",
    "rows choices",
    "logits action log_p log_prob entropy mean dlog_prob dentropy dmean dlogits",
)

MASKED_BELOW = -5.5e29
"""A logit of this or less is none of the choices; the same number as in the C code."""


def choice_terms(logits: Tensor, action: Tensor, wants_mean: bool) -> Terms | None:
    """Return what a loss asks of choices.

    Args:
        logits: ``[..., n]``.
        action: int64 ``[...]``.
        wants_mean: Whether the mean over all choices is asked for, too.

    Returns:
        ``None``: torch has to do it, or to say what is wrong.
    """
    if not _fits(logits, action) or not wants_gradient(logits):  # nobody waits for it
        return None
    try:
        found: Terms = _Categorical.apply(logits, action, wants_mean)  # type: ignore[no-untyped-call]
    except _OutOfRangeError:
        return None
    return found


def choice_pass(logits: Tensor, action: Tensor, wants_mean: bool) -> LossPass | None:
    """As `choice_terms`, of logits that belong to no graph."""
    found = _forward(logits, action, wants_mean) if _fits(logits, action) else None
    if found is None:
        return None
    terms, log_p = found
    return LossPass(terms, partial(_backward, logits, action, log_p, terms[1]))


def _fits(logits: Tensor, action: Tensor) -> bool:
    if torch.compiler.is_compiling():
        return False
    if not (takes_native("auto", logits) and logits.dim() and logits.shape[-1]):
        return False
    return is_plain(logits, logits.shape) and is_plain(action, logits.shape[:-1], torch.int64)


class _OutOfRangeError(Exception):
    """An action is none of the choices."""


def equations(logits: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probability and entropy in operations that torch differentiates, to any order."""
    log_p = logits.log_softmax(-1)
    log_prob = log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1)
    return log_prob, -(log_p.exp() * log_p).sum(-1)


def mean_equations(logits: Tensor) -> Tensor:
    """Return the mean log-probability of all choices ``[...]`` in such operations."""
    counts = ~(logits <= MASKED_BELOW)  # a NaN counts, and shows
    log_p = logits.log_softmax(-1).where(counts, 0.0)
    return log_p.sum(-1) / counts.sum(-1).clamp(min=1)


def _all_equations(logits: Tensor, action: Tensor, wants_mean: bool) -> Grads:
    return *equations(logits, action), mean_equations(logits) if wants_mean else None


class _Categorical(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, action: Tensor, wants_mean: bool) -> Terms:
        found = _forward(logits, action, wants_mean)
        if found is None:
            raise _OutOfRangeError
        terms, log_p = found
        keep(ctx, (logits, action, wants_mean), 2, log_p, terms[1])
        return terms

    @staticmethod
    @differentiable(_all_equations, 2)
    def backward(ctx: Any, inputs: Any, rest: Any, *grads: Tensor | None) -> Grads:
        return _backward(*inputs, *rest, *grads), None, None


def _forward(logits: Tensor, action: Tensor, wants_mean: bool) -> tuple[Terms, Tensor] | None:
    """Return the terms and the log-probabilities of all choices; ``None``: an action is none."""
    log_p = torch.empty_like(logits)
    log_prob, entropy = torch.empty(action.shape), torch.empty(action.shape)
    mean = torch.empty(action.shape) if wants_mean else None
    if _run("forward", logits, action, log_p, log_prob, entropy, mean):
        return None
    return (log_prob, entropy, mean), log_p


def _backward(
    logits: Tensor, action: Tensor, log_p: Tensor, entropy: Tensor, *grads: Tensor | None
) -> Tensor:
    found = torch.empty_like(log_p)
    held = [contiguous(grad) for grad in grads]
    _run("backward", logits, action, log_p, None, entropy, None, *held, found)
    return found


def _run(name: str, logits: Tensor, action: Tensor, *others: Tensor | None) -> int:
    pointers = map(pointer, (logits, action, *others))
    return run(f"xl_categorical_{name}", _Arguments(action.numel(), logits.shape[-1], *pointers))
