"""The causal depthwise convolution, one step at a time, differentiated by autograd."""

import torch
from torch import Tensor

from xlstm_rl.kernels.types import compute_dtype


def causal_conv1d_step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """One step; x ``[B, C]``, weight ``[C, W]``, state ``[B, W - 1, C]`` oldest first."""
    if state is None:
        state = x.new_zeros(x.shape[0], weight.shape[1] - 1, x.shape[1])
    if reset is not None:
        state = state.masked_fill(reset[:, None, None], 0)
    window = torch.cat([state, x[:, None]], 1)  # [B, W, C]
    dtype = compute_dtype(x.dtype)
    y = (window.to(dtype) * weight.to(dtype).t()).sum(1)
    if bias is not None:
        y = y + bias.to(dtype)
    return y.to(x.dtype), window[:, 1:]


def causal_conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The whole sequence, step after step; x ``[B, T, C]``, reset ``[B, T]``."""
    ys = []
    for t in range(x.shape[1]):
        r_t = None if reset is None else reset[:, t]
        y_t, state = causal_conv1d_step(x[:, t], weight, bias, r_t, state)
        ys.append(y_t)
    assert state is not None  # T >= 1 was checked at the door
    return torch.stack(ys, 1), state
