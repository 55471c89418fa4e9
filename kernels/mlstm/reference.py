"""The mLSTM as its equations say it, one step at a time, differentiated by autograd."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.types import LEAST_LOG_FORGET, MLSTMState, compute_dtype, exp_bound


def fresh_state(k: Tensor, v: Tensor) -> MLSTMState:
    """Zeros for keys ``k [B, ..., H, K]`` and values ``v [B, ..., H, V]``."""
    B, H, K, V = k.shape[0], k.shape[-2], k.shape[-1], v.shape[-1]
    dtype = compute_dtype(k.dtype)
    return (
        torch.zeros(B, H, K, V, dtype=dtype, device=k.device),
        torch.zeros(B, H, K, dtype=dtype, device=k.device),
        torch.zeros(B, H, dtype=dtype, device=k.device),
    )


def fresh_rows(C: Tensor, n: Tensor, m: Tensor) -> Tensor:
    """Which rows ``[B, H]`` of a state are fresh: C, n and m are all 0 there.

    Nothing has been written there, so m has no say in the next one: it counts as -inf. All three
    are asked: C can hold something while n is 0, and a step whose key is 0 leaves m behind.
    """
    return (m == 0) & ~(n != 0).any(-1) & ~(C != 0).flatten(-2).any(-1)


def mlstm_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: MLSTMState | None,
    forget_gate: str,
) -> tuple[Tensor, MLSTMState]:
    """One step; q, k ``[B, H, K]``, v ``[B, H, V]``, i, f ``[B, H]``, reset ``[B]``."""
    out_dtype, dtype = v.dtype, compute_dtype(v.dtype)
    q, k, v, i, f = (x.to(dtype) for x in (q, k, v, i, f))
    C, n, m = (x.to(dtype) for x in (fresh_state(k, v) if state is None else state))
    log_f = F.logsigmoid(f) if forget_gate == "sigmoid" else f
    start = log_f < LEAST_LOG_FORGET  # forgets all, as a reset does
    if reset is not None:
        start = start | reset[:, None]
    # filled, not multiplied by zero: not even a NaN of the last episode survives
    C = C.masked_fill(start[..., None, None], 0)
    n = n.masked_fill(start[..., None], 0)
    m_old = m.masked_fill(start, 0)

    older = m_old + log_f
    # on a tie the older branch takes the whole gradient, as in the chunkwise form
    m = torch.where(older >= i, older, torch.maximum(older, i))
    m = torch.where(fresh_rows(C, n, m_old) & ~log_f.isnan(), i, m)  # a NaN stays one
    m = m.masked_fill(m == -torch.inf, 0)  # still nothing: the row stays fresh
    # above 0 only in fresh rows, where there is nothing to forget; inf * 0 is NaN
    bound = exp_bound(dtype)
    forget = torch.exp((older - m).clamp(max=bound))
    write = torch.exp(i - m)
    C = forget[..., None, None] * C + write[..., None, None] * k[..., :, None] * v[..., None, :]
    n = forget[..., None] * n + write[..., None] * k

    q = q * q.shape[-1] ** -0.5
    numerator = (q[..., :, None] * C).sum(-2)
    # exp(-m) must neither underflow to 0 nor overflow to inf
    denominator = torch.maximum((q * n).sum(-1).abs(), torch.exp(-m.clamp(-bound, bound)))
    return (numerator / denominator[..., None]).to(out_dtype), (C, n, m)


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: MLSTMState | None,
    forget_gate: str,
) -> tuple[Tensor, MLSTMState]:
    """The whole sequence, step after step; every input has a time axis behind ``B``."""
    hs = []
    for t in range(q.shape[1]):
        r_t = None if reset is None else reset[:, t]
        h_t, state = mlstm_step(
            q[:, t], k[:, t], v[:, t], i[:, t], f[:, t], r_t, state, forget_gate
        )
        hs.append(h_t)
    assert state is not None  # T >= 1 was checked at the door
    return torch.stack(hs, 1), state
