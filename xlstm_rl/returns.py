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
    _check_shapes("generalized_advantage", reward, value, next_value, terminated, truncated)
    delta = reward + gamma * next_value * ~terminated - value
    # In the rewards' dtype: a float times a bool tensor would be float32, whatever they are.
    carry = gamma * gae_lambda * (~(terminated | truncated)).to(reward.dtype)
    advantage = _discounted_sum(delta, carry)
    return advantage, advantage + value


def vtrace(
    log_ratio: Tensor,
    reward: Tensor,
    value: Tensor,
    next_value: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    gamma: float,
    trace_lambda: float,
    rho_bar: float = 1.0,
    c_bar: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return V-trace advantages and value targets, each `[B, T]`, for off-policy rollouts.

    With `ratio_t = pi(a_t) / mu(a_t)`, `rho_t = min(rho_bar, ratio_t)`,
    `c_t = lambda min(c_bar, ratio_t)` and
    `delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)`:

    - target `v_t = V_t + rho_t delta_t + gamma c_t (1 - done_t) (v_{t+1} - V_{t+1})`,
    - advantage `rho_t (r_t + gamma (1 - terminated_t) w_{t+1} - V_t)`.

    `w_{t+1}` lies by lambda between V(s_{t+1}) and v_{t+1}. Where the episode or the rollout ends
    it is V(s_{t+1}). Source: Espeholt et al. 2018 (arXiv:1802.01561), equation 1, remarks 1 and 2
    and section 4.2.

    At lambda = 1, w is v: the paper's advantage. While both policies are the same and the clips
    are 1 or more, both results are those of `generalized_advantage`, for every lambda.

    Args:
        log_ratio: `[B, T]`, log pi(a|s) - log mu(a|s): the policy that learns, over the one that
            acted.
        reward: `[B, T]`.
        value: `[B, T]`, V of the observation that was acted on.
        next_value: `[B, T]`, V of the observation that followed within the same episode; at a
            truncated step that is the final observation, seen with the memory of its episode.
        terminated: `[B, T]` bool.
        truncated: `[B, T]` bool.
        gamma: discount per step.
        trace_lambda: weight of longer estimates.
        rho_bar: largest weight of a step; it decides whose value the targets have: that of pi
            where it is infinite, that of mu towards 0.
        c_bar: largest weight of what follows; it trades variance for speed, not the fixed point.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes("vtrace", log_ratio, reward, value, next_value, terminated, truncated)
    ratio = log_ratio.exp()
    rho = ratio.clamp(max=rho_bar)
    discount = gamma * trace_lambda * (~(terminated | truncated)).to(reward.dtype)
    delta = reward + gamma * next_value * ~terminated - value
    excess = _discounted_sum(rho * delta, discount * ratio.clamp(max=c_bar))
    # What the targets add to the values after the next step; nothing follows the last one.
    following = torch.cat((excess[:, 1:], torch.zeros_like(excess[:, :1])), 1)
    advantage = rho * (delta + discount * following)
    return advantage, excess + value


def _discounted_sum(x: Tensor, carry: Tensor) -> Tensor:
    """Return `y_t = x_t + carry_t y_{t+1}` for `[B, T]`, with nothing behind the last step."""
    # one operation a step, on numbers that lie in a row
    values, carries = x.T.contiguous().unbind(0), carry.T.contiguous().unbind(0)
    sums = [values[-1]]
    for value, kept in zip(values[-2::-1], carries[-2::-1], strict=True):
        sums.append(torch.addcmul(value, kept, sums[-1]))
    return torch.stack(sums[::-1], 1)


def _check_shapes(name: str, *tensors: Tensor) -> None:
    shapes = [tuple(x.shape) for x in tensors]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        count = {5: "five", 6: "six"}[len(shapes)]
        raise ValueError(f"{name} got shapes {shapes}: expected {count} of [B, T]")
