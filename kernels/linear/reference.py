"""The equations, a step at a time: the oracle."""

import torch
from torch import Tensor


def linear_scan(a: Tensor, b: Tensor, reset: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """``h_t = a_t h_{t-1} + b_t``; see `xlstm_rl.kernels.linear.scan.linear_scan`."""
    outputs = []
    for t in range(a.shape[1]):
        if reset is not None:
            state = state.masked_fill(reset[:, t, None], 0.0)
        state = a[:, t] * state + b[:, t]
        outputs.append(state)
    return torch.stack(outputs, 1), state


def gated_linear_step(
    q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor, bonus: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """Return ``o [B, H, V]`` and the state after one step.

    Args:
        q: ``[B, H, K]``, also ``k``.
        k: keys.
        v: ``[B, H, V]``.
        log_decay: ``[B, H, K]``, or ``[B, H, 1]`` for all of a head, at most 0.
        bonus: ``[H, K]``, of RWKV; None: the output sees the state after the step.
        state: ``[B, H, K, V]``.
    """
    added = k[..., None] * v[..., None, :]
    after = log_decay.exp()[..., None] * state + added
    seen = after if bonus is None else state + bonus[..., None] * added
    return (q[..., None] * seen).sum(-2), after


def gated_linear(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_decay: Tensor,
    reset: Tensor | None,
    state: Tensor,
    bonus: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The steps of ``gated_linear_step`` over ``[B, T, ...]``, with resets between them."""
    outputs = []
    for t in range(q.shape[1]):
        if reset is not None:
            state = state.masked_fill(reset[:, t, None, None, None], 0.0)
        o, state = gated_linear_step(q[:, t], k[:, t], v[:, t], log_decay[:, t], bonus, state)
        outputs.append(o)
    return torch.stack(outputs, 1), state
