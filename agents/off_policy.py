"""Targets for a policy that learns from what an older one did."""

import torch
from tensordict import TensorDict
from torch import Tensor

from xlstm_rl.returns import vtrace


def off_policy_targets(
    data: TensorDict,
    log_ratio: Tensor,
    value: Tensor,
    gamma: float,
    trace_lambda: float,
    clips: tuple[float, float] = (1.0, 1.0),
) -> tuple[Tensor, Tensor]:
    """Return V-trace advantages and value targets `[B, T]` for values under the current weights.

    What follows a step is valued under the current weights too, but for final observations and
    for what follows the rollout: their values are those that were computed while acting.

    Args:
        data: of a rollout.
        log_ratio: `[B, T]`, log pi(a|s) of the current weights, less that of those that acted.
        value: `[B, T]`, under the current weights.
        gamma: discount per step.
        trace_lambda: weight of longer estimates.
        clips: of the importance weights of a step, and of what follows it.
    """
    next_value = torch.cat((value[:, 1:], data["next_value"][:, -1:]), 1)
    next_value = torch.where(data["truncated"], data["next_value"], next_value)
    return vtrace(
        log_ratio,
        data["reward"],
        value,
        next_value,
        data["terminated"],
        data["truncated"],
        gamma,
        trace_lambda,
        *clips,
    )
