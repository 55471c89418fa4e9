"""PPO's loss and its gradients in one call: torch takes some forty operations for it."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from xlstm_rl.kernels.native.arguments import pointer, run, struct
from xlstm_rl.kernels.native.choose import takes_native
from xlstm_rl.kernels.native.held import is_plain

OPTIONS = ("clip", "value_coef", "entropy_coef", "value_clip", "normalize", "least")
"""In the order of the C code."""

PARTS = ("loss", "policy", "value", "entropy", "approx_kl", "clip_fraction")
"""In the order of the C code."""

_Arguments = struct(
    "ppo_loss_arguments",
    "count",
    "log_prob entropy value old_log_prob old_value advantage target valid options "
    "dlog_prob dentropy dvalue parts",
)


def clipped_loss(
    new: tuple[Tensor, Tensor, Tensor],
    old: tuple[Tensor, Tensor, Tensor, Tensor],
    valid: Tensor | None,
    options: tuple[float, ...],
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Return PPO's loss, to be differentiated once, and its parts.

    Args:
        new: log-probabilities, entropies and values ``[N, T]``.
        old: log-probabilities and values of the policy that acted, advantages and targets.
        valid: the steps that count, ``[N, T]``; ``None``: all.
        options: in the order of `OPTIONS`; a ``value_clip`` below 0 is none.

    Returns:
        ``None``: torch has to do it.
    """
    if not takes_native("auto", new[0]):
        return None
    shape = new[0].shape
    if not all([is_plain(tensor, shape) for tensor in (*new, *old)]):
        return None
    if valid is not None and not is_plain(valid, shape, torch.bool):
        return None
    loss, *parts = _Loss.apply(*new, old, valid, options)  # type: ignore[no-untyped-call]
    return loss, dict(zip(PARTS[1:], parts, strict=True))


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        log_prob: Tensor,
        entropy: Tensor,
        value: Tensor,
        old: tuple[Tensor, ...],
        valid: Tensor | None,
        options: tuple[float, ...],
    ) -> tuple[Tensor, ...]:
        given = torch.tensor(options, dtype=torch.float64)
        parts = torch.empty(len(PARTS))
        ctx.grads = [torch.empty_like(log_prob) for _ in range(3)]
        tensors = (log_prob, entropy, value, *old, valid, given, *ctx.grads, parts)
        run("xl_ppo_loss", _Arguments(log_prob.numel(), *map(pointer, tensors)))
        loss, *logged = parts.unbind()
        ctx.mark_non_differentiable(*logged)
        ctx.set_materialize_grads(False)
        return loss, *logged

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor | None, *_: Tensor | None) -> Any:
        if grad is None:
            return (None,) * 6
        factor = grad.item()
        found = ctx.grads if factor == 1.0 else [one * factor for one in ctx.grads]
        return *found, None, None, None
