"""One step of the mLSTM in as few operations as it takes: acting pays for each of them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.mlstm import reference
from xlstm_rl.kernels.types import (
    LEAST_LOG_FORGET,
    MLSTMState,
    any_reset,
    compute_dtype,
    exp_bound,
    restart,
)


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
    """One step; with gradients it is the reference's, differentiated by autograd."""
    dtype = compute_dtype(v.dtype)
    if torch.is_grad_enabled() or state is None or dtype is not v.dtype or dtype is not i.dtype:
        return reference.mlstm_step(q, k, v, i, f, reset, state, forget_gate)
    C, n, m = state
    started = None
    if reset is not None and any_reset(reset):
        C, n, m = restart(C, reset), restart(n, reset), restart(m, reset)
        started = reset
    bound = exp_bound(dtype)
    log_f = F.logsigmoid(f) if forget_gate == "sigmoid" else f
    older = log_f + m
    new_m = torch.maximum(older, i)
    if _all_go_on(log_f, m):
        forget = older.sub_(new_m)
    else:  # as the reference has it
        start = log_f < LEAST_LOG_FORGET
        if not _on_host(m) or start.any():
            C, n = C.masked_fill(start[..., None, None], 0), n.masked_fill(start[..., None], 0)
            m = m.masked_fill(start, 0)
            older = log_f + m
        new_m = torch.where(_fresh_rows(C, n, m, started) & ~log_f.isnan(), i, new_m)
        new_m = new_m.masked_fill(new_m == -torch.inf, 0)
        forget = older.sub_(new_m).clamp_(max=bound)
    m, forget = new_m, forget.exp_()[..., None]
    written = k * (i - m).exp_()[..., None]
    n = torch.addcmul(written, n, forget)
    C = (written[..., None] * v[..., None, :]).addcmul_(C, forget[..., None])

    qn = (q * n).sum(-1).abs_()
    # h = (q C) / max(|q n|, sqrt(K) exp(-m)): the scale of q moved to the floor
    floor = m.clamp(-bound, bound).neg_().exp_().mul_(q.shape[-1] ** 0.5)
    h = torch.empty_like(v, memory_format=torch.contiguous_format)
    # with out=, autocast leaves the dtype alone
    torch.bmm(q.flatten(0, 1)[:, None], C.flatten(0, 1), out=h.view(-1, 1, h.shape[-1]))
    return h.div_(torch.maximum(qn, floor)[..., None]), (C, n, m)


def _on_host(m: Tensor) -> bool:
    """Whether looking at a number costs less than computing for all."""
    return m.device.type == "cpu" and not torch.compiler.is_compiling()


def _all_go_on(log_f: Tensor, m: Tensor) -> bool:
    """Whether it is plain to see that no row is fresh (m = 0) and none forgets all."""
    if not _on_host(m):
        return False
    return int(m.count_nonzero()) == m.numel() and log_f.min().item() >= LEAST_LOG_FORGET


def _fresh_rows(C: Tensor, n: Tensor, m: Tensor, started: Tensor | None) -> Tensor:
    """:func:`reference.fresh_rows`, without reading all of C where ``started`` says it already."""
    if not _on_host(m):
        return reference.fresh_rows(C, n, m)
    fresh = m == 0
    maybe = fresh if started is None else fresh & ~started[:, None]
    if maybe.any():
        rows = maybe.nonzero(as_tuple=True)
        fresh[rows] = reference.fresh_rows(C[rows][:, None], n[rows][:, None], m[rows][:, None])[
            :, 0
        ]
    return fresh
