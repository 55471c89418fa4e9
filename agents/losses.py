"""What the losses of the algorithms share."""

import torch
from torch import Tensor


def valid_mean(x: Tensor, valid: Tensor | None) -> Tensor:
    """Return the mean over valid steps, 0 where there are none; None: every step is valid."""
    return x.mean() if valid is None else x[valid].sum() / valid.sum().clamp(min=1)


def normalized(advantage: Tensor, valid: Tensor | None) -> Tensor:
    """Return advantages shifted and scaled to mean 0 and standard deviation 1 over valid steps.

    Fewer than two valid steps have no deviation: then they stay as they are.
    """
    counted = advantage if valid is None else advantage[valid]
    if counted.numel() < 2:
        return advantage
    return (advantage - counted.mean()) / (counted.std() + 1e-8)


@torch.no_grad()
def explained_variance(value: Tensor, target: Tensor, valid: Tensor | None) -> float:
    """Return `1 - Var(target - value) / Var(target)` over valid steps: 1 is a perfect critic.

    Fewer than two valid steps have no variance to explain: then it is 0.
    """
    residual = target - value
    if valid is not None:
        residual, target = residual[valid], target[valid]
    if target.numel() < 2:
        return 0.0
    return (1 - residual.var() / (target.var() + 1e-8)).item()
