"""Advantages and returns as pure functions on `[B, T]` tensors."""

import torch
from torch import Tensor


def generalized_advantage(
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Return generalised advantage estimates and value targets, each `[B, T]`.

    `delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)` and
    `A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}`, with `done = terminated | truncated`:
    a truncated episode is cut but bootstraps, a terminated one does neither. The target is
    `A_t + V(s_t)`. Source: Schulman et al. 2016 (arXiv:1506.02438), equation 16.

    Args:
        reward: `[B, T]`.
        value: `[B, T]`, V of the observation that was acted on.
        next_value: `[B, T]`, V of the observation that followed within the same episode; at a
            truncated step that is the final observation, seen with the memory of its episode.
        terminated: `[B, T]` bool.
        truncated: `[B, T]` bool.
        gamma: discount per step.
        gae_lambda: weight of longer estimates.

    Raises:
        ValueError: the shapes differ.
    """
    shapes = [tuple(x.shape) for x in (reward, value, next_value, terminated, truncated)]
    if len(set(shapes)) > 1 or reward.ndim != 2:
        raise ValueError(f"generalized_advantage got shapes {shapes}: expected five of [B, T]")
    delta = reward + gamma * next_value * ~terminated - value
    carry = gamma * gae_lambda * ~(terminated | truncated)
    advantage = torch.empty_like(delta)
    running = torch.zeros_like(delta[:, 0])
    for t in range(delta.shape[1] - 1, -1, -1):
        running = torch.addcmul(delta[:, t], carry[:, t], running)
        advantage[:, t] = running
    return advantage, advantage + value
