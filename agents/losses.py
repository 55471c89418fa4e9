"""What the losses of the algorithms share."""

import torch
from torch import Tensor

from xlstm_rl.distributed import ALONE, Ranks


def valid_mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean over valid steps, 0 where there are none; None: every step is valid."""
    return x.mean() if valid is None else x[valid].sum() / valid.sum().clamp(min=1)


def normalized(advantage: Tensor, valid: Tensor | None, ranks: Ranks = ALONE) -> Tensor:
    """Return advantages shifted and scaled to mean 0 and standard deviation 1 over valid steps.

    Those of all processes count. Fewer than two valid steps have no deviation: then they stay as
    they are.
    """
    counted = advantage if valid is None else advantage[valid]
    if ranks.size > 1:
        moments = ranks.moments(counted)
        shifted = (advantage - moments.mean) / (moments.variance().sqrt() + 1e-8)
        return torch.where(moments.numel < 2, advantage, shifted.to(advantage.dtype))
    if counted.numel() < 2:
        return advantage
    return (advantage - counted.mean()) / (counted.std() + 1e-8)


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
        left, whole = ranks.moments(residual), ranks.moments(target)
        explained = 1 - left.variance() / (whole.variance() + 1e-8)
        return explained.item() if bool(whole.numel > 1) else 0.0
    if target.numel() < 2:
        return 0.0
    return (1 - residual.var() / (target.var() + 1e-8)).item()
