"""One step of the sLSTM in few operations: acting pays for each of them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.slstm import reference
from xlstm_rl.kernels.types import SLSTMState, any_reset, compute_dtype, exp_bound, restart


def slstm_step(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: SLSTMState | None,
    forget_gate: str,
) -> tuple[Tensor, SLSTMState]:
    """One step; with gradients it is the reference's, differentiated by autograd.

    A graph that is exported may be run with gradients later, so it is the reference's too.
    """
    dtype = compute_dtype(x.dtype)
    if (
        torch.is_grad_enabled()
        or torch.compiler.is_exporting()
        or state is None
        or not (dtype is x.dtype is R.dtype is b.dtype is state[0].dtype)
    ):
        return reference.slstm_step(x, R, b, reset, state, forget_gate)
    h, c, n, m = state
    if reset is not None and any_reset(reset):
        h, c, n, m = (restart(s, reset) for s in (h, c, n, m))
    B, H, D = h.shape
    seen = h.transpose(0, 1).expand(4, H, B, D).reshape(4 * H, B, D)
    mixed = torch.empty_like(seen)
    torch.bmm(seen, R.flatten(0, 1), out=mixed)  # with out=, autocast leaves the dtype alone
    raw = (x + mixed.view(4, H, B, D).permute(2, 0, 1, 3)).add_(b)
    i, f, z, o = raw.unbind(1)
    log_forget = (F.logsigmoid(f) if forget_gate == "sigmoid" else f) + m
    m = torch.where(n == 0, i, torch.maximum(i, log_forget))
    write = (i - m).exp_()
    forget = log_forget.sub_(m).clamp_(max=exp_bound(dtype)).exp_()
    c = (forget * c).addcmul_(write, z.tanh_())
    n = torch.addcmul(write, forget, n)
    h = (c / n).mul_(o.sigmoid_())
    return h, (h, c, n, m)
