"""What a loss asks of choices: one call for all rows, and one back."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, wants_gradient
from xlstm_rl.kernels.native.arguments import contiguous, empty, pointer, run, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.held import is_plain
from xlstm_rl.kernels.native.terms import Terms

_Arguments = struct(
    "categorical_arguments",
    "rows choices numbers",
    "counts logits action log_p entropies log_prob entropy mean dlog_prob dentropy dmean dlogits",
)

MASKED_BELOW = -5.5e29
"""A logit of this or less is none of the choices; the same number as in the C code."""


Counts = tuple[int, ...] | None
"""Choices of each of K numbers that are chosen side by side; ``None``: one number has them all."""


def choice_terms(
    logits: Tensor, action: Tensor, wants_mean: bool, counts: Counts = None
) -> Terms | None:
    """Return what a loss asks of choices.

    Args:
        logits: ``[..., n]``; with `counts` those of one number after those of the other.
        action: int64 ``[...]``; with `counts` ``[..., K]``.
        wants_mean: Whether the mean over all choices is asked for, too.
        counts: of which each term is the sum over the numbers.

    Returns:
        ``None``: torch has to do it, or to say what is wrong.
    """
    if not wants_gradient(logits) or not choices_fit(logits, action, counts):
        return None  # nobody waits for it, or C cannot read it
    try:
        found: Terms = _Categorical.apply(logits, action, wants_mean, counts)  # type: ignore[no-untyped-call]
    except _OutOfRangeError:
        return None
    return found


def choices_fit(logits: Tensor, action: Tensor, counts: Counts) -> bool:
    """Whether C can read them."""
    if torch.compiler.is_compiling():
        return False
    if not (takes_native("auto", logits) and logits.dim() and logits.shape[-1]):
        return False
    if counts is not None and sum(counts) != logits.shape[-1]:
        return False
    shape = (*logits.shape[:-1], *(() if counts is None else (len(counts),)))
    return is_plain(logits, logits.shape) and is_plain(action, shape, torch.int64)


@functools.lru_cache(maxsize=64)
def held_counts(counts: Counts) -> Any:
    """Return them as C reads them; ``None``: none."""
    return None if counts is None else (ctypes.c_int64 * len(counts))(*counts)


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


def _all_equations(logits: Tensor, action: Tensor, wants_mean: bool, counts: Counts) -> Grads:
    if counts is None:
        return *equations(logits, action), mean_equations(logits) if wants_mean else None
    each = [
        _all_equations(own, chosen, wants_mean, None)
        for own, chosen in zip(logits.split(counts, -1), action.unbind(-1), strict=True)
    ]
    return tuple([_sum(terms) for terms in zip(*each, strict=True)])


def _sum(terms: Sequence[Tensor | None]) -> Tensor | None:
    known = [one for one in terms if one is not None]
    return torch.stack(known).sum(0) if known else None


class _Categorical(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, action: Tensor, wants_mean: bool, counts: Counts
    ) -> Terms:
        log_p = torch.empty_like(logits)
        entropies = empty(*action.shape)
        log_prob, entropy = empty(*logits.shape[:-1]), empty(*logits.shape[:-1])
        mean = empty(*logits.shape[:-1]) if wants_mean else None
        if _run("forward", counts, logits, action, log_p, entropies, log_prob, entropy, mean):
            raise _OutOfRangeError
        keep(ctx, (logits, action, wants_mean, counts), 2, log_p, entropies)
        return log_prob, entropy, mean

    @staticmethod
    @differentiable(_all_equations, 2)
    def backward(ctx: Any, inputs: Any, rest: Any, *grads: Tensor | None) -> Grads:
        (logits, action), (log_p, entropies), (_, counts) = inputs, rest, ctx.options
        found = torch.empty_like(log_p)
        held = [contiguous(grad) for grad in grads]
        terms = None, None, None
        _run("backward", counts, logits, action, log_p, entropies, *terms, *held, found)
        return found, None, None, None


def _run(name: str, counts: Counts, logits: Tensor, action: Tensor, *others: Tensor | None) -> int:
    choices, held = logits.shape[-1], held_counts(counts)
    arguments = _Arguments(
        *(logits.numel() // choices, choices, 1 if counts is None else len(counts)),
        *(
            None if held is None else ctypes.addressof(held),
            *map(pointer, (logits, action, *others)),
        ),
    )
    return run(f"xl_categorical_{name}", arguments)
