"""The sLSTM as its equations say it, one step at a time, differentiated by autograd."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.types import SLSTMState, compute_dtype, exp_bound


def fresh_state(x: Tensor) -> SLSTMState:
    """Zeros for pre-activations ``x [B, ..., 4, H, D]``."""
    B, H, D = x.shape[0], x.shape[-2], x.shape[-1]
    zeros = torch.zeros(4, B, H, D, dtype=compute_dtype(x.dtype), device=x.device)
    h, c, n, m = zeros.unbind(0)
    return h, c, n, m


def mixed(x: Tensor, R: Tensor, b: Tensor, h: Tensor) -> Tensor:
    """Pre-activations ``[B, 4, H, D]`` with what the last output ``h [B, H, D]`` adds to them."""
    # R[g, h, from, to]: memory mixing stays inside a head
    return x + (h[:, None, :, :, None] * R[None]).sum(-2) + b


def slstm_step(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: SLSTMState | None,
    forget_gate: str,
    input_gate: str = "exponential",
) -> tuple[Tensor, SLSTMState]:
    """One step; x ``[B, 4, H, D]`` in the order i, f, z, o, reset ``[B]``."""
    out_dtype, dtype = x.dtype, compute_dtype(x.dtype)
    x, R, b = x.to(dtype), R.to(dtype), b.to(dtype)
    h, c, n, m = (s.to(dtype) for s in (fresh_state(x) if state is None else state))
    if reset is not None:
        # filled, not multiplied by zero: not even a NaN of the last episode survives
        h, c, n, m = (s.masked_fill(reset[:, None, None], 0) for s in (h, c, n, m))

    i, f, z, o = mixed(x, R, b, h).unbind(1)
    if input_gate == "sigmoid":
        i = F.logsigmoid(i)
    log_forget = m + (F.logsigmoid(f) if forget_gate == "sigmoid" else f)
    # on a tie the older branch takes the whole gradient; a NaN in either is one
    m = torch.where(log_forget >= i, log_forget, torch.maximum(log_forget, i))
    m = torch.where(n == 0, i, m)
    write = torch.exp(i - m)
    # above 0 only where n' = 0, that is where there is nothing to forget; inf * 0 is NaN
    forget = torch.exp((log_forget - m).clamp(max=exp_bound(dtype)))
    c = forget * c + write * torch.tanh(z)
    n = forget * n + write
    h = torch.sigmoid(o) * c / n
    return h.to(out_dtype), (h, c, n, m)


def slstm(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: SLSTMState | None,
    forget_gate: str,
) -> tuple[Tensor, SLSTMState]:
    """The whole sequence, step after step; x ``[B, T, 4, H, D]``."""
    hs = []
    for t in range(x.shape[1]):
        r_t = None if reset is None else reset[:, t]
        h_t, state = slstm_step(x[:, t], R, b, r_t, state, forget_gate)
        hs.append(h_t)
    assert state is not None  # T >= 1 was checked at the door
    return torch.stack(hs, 1), state
