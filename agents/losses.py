"""What the losses of the algorithms share."""

import torch
from torch import Tensor


def live_mean(x: Tensor, live: Tensor | None) -> Tensor:
    """Return the mean over live steps, 0 where there are none; None: every step is live."""
    return x.mean() if live is None else x[live].sum() / live.sum().clamp(min=1)


def normalized(advantage: Tensor, live: Tensor | None) -> Tensor:
    """Return advantages shifted and scaled to mean 0 and standard deviation 1 over live steps.

    Fewer than two live steps have no deviation: then they stay as they are.
    """
    counted = advantage if live is None else advantage[live]
    if counted.numel() < 2:
        return advantage
    return (advantage - counted.mean()) / (counted.std() + 1e-8)


@torch.no_grad()
def explained_variance(value: Tensor, target: Tensor, live: Tensor | None) -> float:
    """Return `1 - Var(target - value) / Var(target)` over live steps: 1 is a perfect critic."""
    residual = target - value
    if live is not None:
        residual, target = residual[live], target[live]
    return (1 - residual.var() / (target.var() + 1e-8)).item()
