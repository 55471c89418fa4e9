"""The gates of the chunkwise mLSTM: every weight that the matrix products need.

Logarithms of weights are summed and subtracted in float64 (they are small tensors): a running sum
of log forget gates can be far larger than the differences that matter.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.types import LEAST_LOG_FORGET, compute_dtype, exp_bound


class Layout(NamedTuple):
    """How a sequence of ``T`` steps is cut: ``N`` chunks of ``L`` steps, the last one padded."""

    B: int
    T: int
    H: int
    N: int
    L: int

    def cut(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """View ``[B, T, H, ...]`` as chunks ``[N, B, H, L, ...]``, padded with ``fill``."""
        B, T, _, N, L = self
        if N * L != T:
            tail = x.new_full((B, N * L - T, *x.shape[2:]), fill)
            x = torch.cat([x, tail], 1)
        return x.reshape(B, N, L, *x.shape[2:]).movedim(1, 0).transpose(2, 3)

    def join(self, x: Tensor, out: Tensor) -> Tensor:
        """Copy chunks ``[N, B, H, L, ...]`` into ``out [B, T, H, ...]``, dropping the padding."""
        B, T, H, N, L = self
        if N * L == T:
            self.cut(out).copy_(x)
            return out
        whole = out.new_empty(B, N * L, H, *out.shape[3:])
        whole.view(B, N, L, H, *out.shape[3:]).movedim(1, 0).transpose(2, 3).copy_(x)
        return out.copy_(whole[:, :T])


class Gates(NamedTuple):
    """Weights in the compute dtype; ``X`` stands for the leading axes ``[N, B, H]``."""

    within: Tensor
    """``[X, L, L]``: of step j in row i, ``K ** -0.5`` included, 0 outside i's segment."""
    carried: Tensor
    """``[X, L]``: of the state before the chunk in row i, ``K ** -0.5`` included."""
    floor: Tensor
    """``[X, L]``: the least denominator, ``exp(-m)``."""
    last: Tensor
    """``[X, L]``: of step j in the state behind the chunk."""
    decay: Tensor
    """``[X]``: of the state before the chunk in the state behind it."""
    m: Tensor
    """``[B, H]``: the stabiliser of the final state."""


def choose_layout(B: int, T: int, H: int, chunk_size: int, wide: bool) -> Layout:
    """Cut ``T`` evenly; ``wide`` asks for the longest chunks allowed."""
    N = -(-T // min(chunk_size, 64 if wide else 32))
    return Layout(B, T, H, N, -(-T // N))


def log_forget_gate(f: Tensor, forget_gate: str) -> Tensor:
    """The logarithm of the forget gate, in the compute dtype."""
    f = f.to(compute_dtype(f.dtype))
    return F.logsigmoid(f) if forget_gate == "sigmoid" else f


def make_gates(
    layout: Layout,
    i: Tensor,
    log_f: Tensor,
    reset: Tensor | None,
    m_0: Tensor | None,
    scale: float,
) -> Gates:
    """All weights of a sequence; i, log_f ``[B, T, H]``, reset ``[B, T]``, m_0 ``[B, H]``."""
    B, _, H, N, L = layout
    dtype, device = log_f.dtype, i.device
    log_fc = _tile64(layout.cut(log_f)).clamp_(min=LEAST_LOG_FORGET)
    b = log_fc.cumsum(-1)  # [N, B, H, L]
    c = _tile64(layout.cut(i, -torch.inf)).sub_(b)
    g = b[..., -1]  # [N, B, H]
    # the weight exp(base + m) of the state before the chunk, and the same for a fresh state
    # (m = 0) behind a reset: it carries nothing, but counts in the running maximum
    last_log = g[..., None] + c
    if reset is None:
        fresh = seen = None
        top = last_log.amax(-1)
        row_top = b + c.cummax(-1).values
    else:
        seen = layout.cut(reset[..., None]).cumsum(-1)  # [N, B, 1, L] resets so far in the chunk
        fresh = _since_reset(b, log_fc, layout.cut(reset[..., None]))
        last_log = last_log.masked_fill(seen != seen[..., -1:], -torch.inf)
        top = torch.maximum(last_log.amax(-1), fresh[..., -1])
        apart = seen[..., :, None] != seen[..., None, :]  # [N, B, 1, L, L]
        apart = apart | torch.ones(L, L, dtype=torch.bool, device=device).triu_(1)
        row_top = (b[..., :, None] + c[..., None, :]).masked_fill_(apart, -torch.inf).amax(-1)
        row_top = torch.maximum(row_top, fresh)
        b_in = b.masked_fill(seen > 0, -torch.inf)
        g = g.masked_fill(seen[..., -1] > 0, -torch.inf)
    m = torch.empty(N + 1, B, H, dtype=torch.float64, device=device)
    m[0] = 0.0 if m_0 is None else m_0
    if reset is not None:
        m[0].masked_fill_(reset[:, :1], 0)
    steps = list(m.unbind(0))
    for n, (g_n, top_n) in enumerate(zip(g.unbind(0), top.unbind(0), strict=True)):
        torch.maximum(steps[n] + g_n, top_n, out=steps[n + 1])

    into_row = (b if reset is None else b_in) + m[:-1, ..., None]
    row_m = torch.maximum(into_row, row_top)
    # differences in float64, results in the compute dtype
    within = torch.empty(N, B, H, L, L, dtype=dtype, device=device)
    log_scale = math.log(scale)
    row = b - row_m + log_scale
    torch.add(row[..., :, None], c[..., None, :], out=within)
    bound = exp_bound(dtype)
    _weight_(within.clamp_(-bound, 0))  # above 0 only right of the diagonal
    if reset is None:
        within.tril_()
    else:
        within.masked_fill_(apart, 0)
    return Gates(
        within,
        _weight_((into_row - row_m + log_scale).to(dtype)),
        row_m.clamp(-bound, bound).neg_().exp_().to(dtype),
        _weight_((last_log - m[1:, ..., None]).to(dtype)),
        _weight_((g + m[:-1] - m[1:]).to(dtype)),
        m[-1].to(dtype),
    )


def _tile64(x: Tensor) -> Tensor:
    return x.to(torch.float64, memory_format=torch.contiguous_format, copy=True)


def _weight_(log_weight: Tensor) -> Tensor:
    """Exponentiate in place; weights that no sum can feel become 0.

    They are relative to a largest weight of 1. Left alone they make subnormal numbers in the
    products behind them, which cost a CPU up to forty times as much.
    """
    least = 1e-28 if log_weight.dtype == torch.float32 else 1e-280
    return F.threshold(log_weight.exp_(), least, 0.0, inplace=True)


def _since_reset(b: Tensor, log_f: Tensor, reset: Tensor) -> Tensor:
    """Sums of log_f since the last reset of the chunk, ``-inf`` before it; ``[N, B, H, L]``."""
    L = b.shape[-1]
    steps = torch.arange(L, device=b.device)
    start = torch.where(reset, steps, -1).cummax(-1).values.expand(b.shape)
    before = (b - log_f).gather(-1, start.clamp(min=0))
    return (b - before).masked_fill_(start < 0, -torch.inf)
