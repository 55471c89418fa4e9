"""One step of the mLSTM in as few operations as it takes: acting pays for each of them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.mlstm import reference
from xlstm_rl.kernels.types import MLSTMState, any_reset, compute_dtype, exp_bound, restart


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
    if reset is not None and any_reset(reset):
        C, n, m = restart(C, reset), restart(n, reset), restart(m, reset)
    log_forget = (F.logsigmoid(f) if forget_gate == "sigmoid" else f) + m
    m = torch.maximum(log_forget, i)
    forget = log_forget.sub_(m).exp_()[..., None]
    written = k * (i - m).exp_()[..., None]
    n = torch.addcmul(written, n, forget)
    C = (written[..., None] * v[..., None, :]).addcmul_(C, forget[..., None])

    bound = exp_bound(dtype)
    qn = (q * n).sum(-1).abs_()
    # h = (q C) / max(|q n|, sqrt(K) exp(-m)): the scale of q moved to the floor
    floor = m.clamp(-bound, bound).neg_().exp_().mul_(q.shape[-1] ** 0.5)
    h = torch.empty_like(v, memory_format=torch.contiguous_format)
    # with out=, autocast leaves the dtype alone
    torch.bmm(q.flatten(0, 1)[:, None], C.flatten(0, 1), out=h.view(-1, 1, h.shape[-1]))
    return h.div_(torch.maximum(qn, floor)[..., None]), (C, n, m)
