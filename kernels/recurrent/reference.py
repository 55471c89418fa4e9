"""A layer of an LSTM or a GRU as its equations say it, one step at a time, as torch has them."""

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = tuple[Tensor, Tensor, Tensor, Tensor]
"""``w_ih [G H, D]``, ``w_hh [G H, H]``, ``b_ih``, ``b_hh [G H]``; gates i, f, g, o or r, z, n."""

State = tuple[Tensor, ...]
"""h, and of an LSTM c: each ``[B, H]``."""


def lstm_step(x: Tensor, state: State, weights: Weights) -> State:
    """One step of an LSTM, x ``[B, D]``."""
    (h, c), (w_ih, w_hh, b_ih, b_hh) = state, weights
    i, f, g, o = (F.linear(x, w_ih, b_ih) + F.linear(h, w_hh, b_hh)).chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru_step(x: Tensor, state: State, weights: Weights) -> State:
    """One step of a GRU, x ``[B, D]``."""
    (h,), (w_ih, w_hh, b_ih, b_hh) = state, weights
    r_x, z_x, n_x = F.linear(x, w_ih, b_ih).chunk(3, -1)
    r_h, z_h, n_h = F.linear(h, w_hh, b_hh).chunk(3, -1)
    n = torch.tanh(n_x + torch.sigmoid(r_x + r_h) * n_h)
    return (n + torch.sigmoid(z_x + z_h) * (h - n),)


def sequence(
    x: Tensor, reset: Tensor | None, state: State, weights: Weights
) -> tuple[Tensor, State]:
    """A whole sequence, x ``[B, T, D]``, reset ``[B, T]``; of two states it is an LSTM."""
    step = lstm_step if len(state) == 2 else gru_step
    ys = []
    for t in range(x.shape[1]):
        if reset is not None:
            state = tuple(s.masked_fill(reset[:, t, None], 0.0) for s in state)
        state = step(x[:, t], state, weights)
        ys.append(state[0])
    return torch.stack(ys, 1), state
