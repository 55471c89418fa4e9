"""What the losses of the algorithms share."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from xlstm_rl.distributed import ALONE, Moments, Ranks

Log = Mapping[str, Tensor | float]
"""The parts of a loss, by name."""


def valid_mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean over valid steps, 0 where there are none; None: every step is valid."""
    return x.mean() if valid is None else x[valid].sum() / valid.sum().clamp(min=1)


def mean_of(logs: Sequence[Log], name: str) -> float:
    """Return the mean of a part of several losses, rounded as torch rounds it."""
    values = [log[name] for log in logs]
    tensors = [value for value in values if isinstance(value, Tensor)]
    if len(tensors) == len(values):  # asks a GPU once
        return torch.stack(tensors).mean().item()
    numbers = [float(value) for value in values]
    return torch.tensor(numbers, dtype=torch.float32, device="cpu").mean().item()


def moments_of_all(
    advantages: Sequence[Tensor], valid: Sequence[Tensor | None], ranks: Ranks
) -> list[Moments | None]:
    """Return the moments over valid steps of each batch's advantages, with those of all processes.

    None where one process trains, which needs none.
    """
    if ranks.size == 1:
        return [None] * len(advantages)
    pairs = zip(advantages, valid, strict=True)
    return [*ranks.moments(*(x if own is None else x[own] for x, own in pairs))]


def normalized(
    advantage: Tensor,
    valid: Tensor | None,
    moments: Moments | None = None,
    least: Tensor | None = None,
) -> Tensor:
    """Return advantages shifted and scaled to mean 0 and standard deviation 1 over valid steps.

    Fewer than two valid steps have no deviation: then they stay as they are.

    Args:
        advantage: of any shape.
        valid: of the same shape; None: every step is.
        moments: of the valid ones and of those of other processes; None: there is one process.
        least: they are divided by this where their standard deviation is smaller; None: never.
    """
    if moments is not None:
        shifted = (advantage - moments.mean) / _divisor(moments.variance().sqrt(), least)
        return torch.where(moments.numel < 2, advantage, shifted.to(advantage.dtype))
    counted = advantage if valid is None else advantage[valid]
    if counted.numel() < 2:
        return advantage
    return (advantage - counted.mean()) / _divisor(counted.std(), least)


def _divisor(deviation: Tensor, least: Tensor | None) -> Tensor:
    return (deviation if least is None else torch.maximum(deviation, least)) + 1e-8


def with_log_barrier(
    loss: Tensor,
    log: dict[str, Tensor],
    mean_log_prob: Tensor | None,
    valid: Tensor | None,
    coef: float,
) -> Tensor:
    """Return a loss less `coef` times the mean log-probability of all choices, and log that mean.

    Its gradient on a logit is `coef * (1 / n - p)`: on a choice that is nearly lost it does not
    fade, as that of the entropy does, `p * (log p + H)`.

    Args:
        loss: a scalar.
        log: gets `log_barrier`.
        mean_log_prob: as a distribution says, of each step; None: nothing is a choice.
        valid: the steps that count; None: all.
        coef: the weight now.
    """
    if mean_log_prob is None:
        return loss
    mean = valid_mean(mean_log_prob, valid)
    log["log_barrier"] = mean.detach()
    return loss - coef * mean


@torch.no_grad()
def explained_variance(
    value: Tensor, target: Tensor, valid: Tensor | None, ranks: Ranks = ALONE
) -> float:
    """Return `1 - Var(target - value) / Var(target)` over valid steps: 1 is a perfect critic.

    Those of all processes count. Fewer than two valid steps have no variance to explain: then it
    is 0.
    """
    residual = target - value
    if valid is not None:
        residual, target = residual[valid], target[valid]
    if ranks.size > 1:
        left, whole = ranks.moments(residual, target)
        explained = 1 - left.variance() / (whole.variance() + 1e-8)
        return explained.item() if bool(whole.numel > 1) else 0.0
    if target.numel() < 2:
        return 0.0
    return (1 - residual.var() / (target.var() + 1e-8)).item()
