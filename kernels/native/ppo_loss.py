"""PPO's loss and its gradients in one call: torch takes some forty operations for it."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_rl.kernels.native.arguments import pointer, run, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.held import is_plain

OPTIONS = (
    *("clip", "value_coef", "entropy_coef", "barrier_coef"),
    *("value_clip", "normalize", "least"),
)
"""In the order of the C code."""

PARTS = ("loss", "policy", "value", "entropy", "approx_kl", "clip_fraction", "log_barrier")
"""In the order of the C code."""

_Arguments = struct(
    "ppo_loss_arguments",
    "count",
    "log_prob entropy value barrier old_log_prob old_value advantage target valid options "
    "dlog_prob dentropy dvalue dbarrier parts",
)


def clipped_loss(
    new: tuple[Tensor, Tensor, Tensor, Tensor | None],
    old: tuple[Tensor, Tensor, Tensor, Tensor],
    valid: Tensor | None,
    options: tuple[float, ...],
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Return PPO's loss, to be differentiated once, and its parts.

    Args:
        new: log-probabilities, entropies, values and mean log-probabilities of all choices
            ``[N, T]``; ``None``: these are no choices, or no barrier is asked for.
        old: log-probabilities and values of the policy that acted, advantages and targets.
        valid: the steps that count, ``[N, T]``; ``None``: all.
        options: in the order of `OPTIONS`; a ``value_clip`` below 0 is none.

    Returns:
        ``None``: torch has to do it.
    """
    if not takes_native("auto", new[0]):
        return None
    shape = new[0].shape
    given = new if new[3] is not None else new[:3]
    if not all([is_plain(tensor, shape) for tensor in (*given, *old)]):
        return None
    if valid is not None and not is_plain(valid, shape, torch.bool):
        return None
    loss, *parts = _Loss.apply(*new, old, valid, options)  # type: ignore[no-untyped-call]
    log = dict(zip(PARTS[1:], parts, strict=True))
    if new[3] is None:
        del log["log_barrier"]
    return loss, log


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        log_prob: Tensor,
        entropy: Tensor,
        value: Tensor,
        barrier: Tensor | None,
        old: tuple[Tensor, ...],
        valid: Tensor | None,
        options: tuple[float, ...],
    ) -> tuple[Tensor, ...]:
        given = torch.tensor(options, dtype=torch.float64)
        parts = torch.empty(len(PARTS))
        count = 3 if barrier is None else 4
        grads: list[Tensor | None] = [torch.empty_like(log_prob) for _ in range(count)]
        ctx.grads = grads if barrier is not None else [*grads, None]
        tensors = (log_prob, entropy, value, barrier, *old, valid, given, *ctx.grads, parts)
        run("xl_ppo_loss", _Arguments(log_prob.numel(), *map(pointer, tensors)))
        loss, *logged = parts.unbind()
        ctx.mark_non_differentiable(*logged)
        ctx.set_materialize_grads(False)
        return loss, *logged

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> Any:
        if grad is None:
            return (None,) * 7
        factor, found = grad.item(), ctx.grads
        if factor != 1.0:
            found = [None if one is None else one * factor for one in found]
        return *found, None, None, None
