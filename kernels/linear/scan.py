"""An elementwise linear recurrence in log2 T parallel steps (Hillis & Steele 1986)."""

import torch
from torch import Tensor


def linear_scan(a: Tensor, b: Tensor, reset: Tensor | None, state: Tensor) -> tuple[Tensor, Tensor]:
    """Return ``h_t = a_t h_{t-1} + b_t`` for all steps at once.

    Args:
        a: decays ``[B, T, D]``.
        b: inputs ``[B, T, D]``.
        reset: bool ``[B, T]``: the state before the step is zero; None: nowhere.
        state: ``[B, D]``, before the first step.

    Returns:
        h ``[B, T, D]`` and the state after the last step ``[B, D]``.
    """
    length = a.shape[1]
    cut = torch.zeros_like(a[..., :1], dtype=torch.bool) if reset is None else reset[..., None]
    first = b[:, :1] + a[:, :1] * state[:, None].masked_fill(cut[:, :1], 0.0)
    h = torch.cat([first, b[:, 1:]], 1)
    # the sum over a span of steps, what it multiplies a state before it by, and whether a reset
    # lies in it
    span = 1
    while span < length:
        own_cut = cut[:, span:]
        before = h[:, :-span].masked_fill(own_cut, 0.0)
        decay = a[:, span:]
        h = torch.cat([h[:, :span], h[:, span:] + decay * before], 1)
        a = torch.cat([a[:, :span], decay * a[:, :-span]], 1)
        cut = torch.cat([cut[:, :span], own_cut | cut[:, :-span]], 1)
        span *= 2
    return h, h[:, -1]
