"""One step of the mLSTM in as few operations as it takes: acting pays for each of them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.mlstm import reference
from xlstm_rl.kernels.mlstm.reference import fresh_rows
from xlstm_rl.kernels.types import (
    LEAST_LOG_FORGET,
    MLSTMState,
    any_reset,
    compute_dtype,
    exp_bound,
    never_forgets_all,
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
    """One step; with gradients it is the reference's, differentiated by autograd.

    A graph that is exported may be run with gradients later, so it is the reference's too.
    """
    dtype = compute_dtype(v.dtype)
    if (
        torch.is_grad_enabled()
        or torch.compiler.is_exporting()
        or state is None
        or not (dtype is v.dtype is i.dtype)
    ):
        return reference.mlstm_step(q, k, v, i, f, reset, state, forget_gate)
    C, n, m = state
    if reset is not None and any_reset(reset):
        # what holds nothing has no say in the maximum
        C, n, m = restart(C, reset), restart(n, reset), restart(m, reset, -torch.inf)
    bound = exp_bound(dtype)
    log_f = F.logsigmoid(f) if forget_gate == "sigmoid" else f
    older = log_f + m
    new_m = torch.maximum(older, i)
    if _is_plain(log_f, m, new_m):
        forget = older.sub_(new_m)
    else:  # as the reference has it
        start = log_f < LEAST_LOG_FORGET
        if reset is not None:
            start |= reset[:, None]
        C, n = C.masked_fill(start[..., None, None], 0), n.masked_fill(start[..., None], 0)
        m = state[2].masked_fill(start, 0)
        older = log_f + m
        new_m = torch.where(fresh_rows(C, n, m) & ~log_f.isnan(), i, torch.maximum(older, i))
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


def _is_plain(log_f: Tensor, m: Tensor, new_m: Tensor) -> bool:
    """Whether it is seen at a glance that all is finite, and no row fresh but those of a reset.

    A state's m is 0 where it is fresh, here it is -inf behind a reset. Nothing is looked up where
    that would cost more than computing for all.
    """
    if m.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return math.isfinite((new_m / m).sum().item()) and never_forgets_all(log_f)
