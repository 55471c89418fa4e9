"""The gates of the chunkwise mLSTM: every weight that the matrix products need.

Logarithms of weights are summed and subtracted in float64 (they are small tensors): a running sum
of log forget gates can be far larger than the differences that matter.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.types import LEAST_LOG_FORGET, compute_dtype, exp_bound, never_forgets_all

_NOTHING = -1e300
"""The m of a row in which nothing was written: -inf, but such that differences are numbers."""


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


def find_starts(f: Tensor, reset: Tensor | None) -> Tensor | None:
    """Where a memory begins anew, ``[B, T, 1]`` or per head ``[B, T, H]``; ``None``: nowhere.

    At a reset, and where a forget gate forgets all; log sigmoid(f) is f that far below 0.
    """
    if f.device.type == "cpu" and never_forgets_all(f):
        return None if reset is None else reset[..., None]
    forgotten = f < LEAST_LOG_FORGET
    return forgotten if reset is None else forgotten | reset[..., None]


def make_gates(
    layout: Layout,
    i: Tensor,
    log_f: Tensor,
    starts: Tensor | None,
    m_0: Tensor | None,
    fresh: Tensor | None,
    scale: float,
) -> Gates:
    """All weights of a sequence.

    Args:
        layout: how it is cut.
        i: input gates ``[B, T, H]``.
        log_f: logarithms of the forget gates ``[B, T, H]``.
        starts: of `find_starts`.
        m_0: of the first state, ``[B, H]``; ``None``: there is none.
        fresh: which rows of the first state are fresh, ``[B, H]``; ``None``: none.
        scale: of the queries.
    """
    B, _, H, N, L = layout
    dtype, device = log_f.dtype, i.device
    log_fc = _tile64(layout.cut(log_f))
    if starts is not None:  # nothing is forgotten across them: the sums keep their digits
        log_fc.masked_fill_(log_fc < LEAST_LOG_FORGET, 0)
    b = log_fc.cumsum(-1)  # [N, B, H, L]
    c = _tile64(layout.cut(i, -torch.inf)).sub_(b)
    g = b[..., -1]  # [N, B, H]
    last_log = g[..., None] + c
    if starts is None:
        b_in = b
        top = last_log.amax(-1)
        row_top = b + c.cummax(-1).values
    else:
        seen = layout.cut(starts).cumsum(-1)  # [N, B, 1 or H, L] starts so far in the chunk
        last_log = last_log.masked_fill(seen != seen[..., -1:], -torch.inf)
        top = last_log.amax(-1)
        apart = seen[..., :, None] != seen[..., None, :]  # [N, B, 1 or H, L, L]
        apart = apart | torch.ones(L, L, dtype=torch.bool, device=device).triu_(1)
        row_top = (b[..., :, None] + c[..., None, :]).masked_fill_(apart, -torch.inf).amax(-1)
        b_in = b.masked_fill(seen > 0, -torch.inf)
        g = g.masked_fill(seen[..., -1] > 0, -torch.inf)
    # the running maximum: what was not written has no say in it
    m = torch.empty(N + 1, B, H, dtype=torch.float64, device=device)
    m[0] = _NOTHING if m_0 is None else m_0
    if fresh is not None:
        m[0].masked_fill_(fresh, _NOTHING)
    if starts is not None:
        m[0].masked_fill_(starts[:, 0], _NOTHING)
    steps = list(m.unbind(0))
    for n, (g_n, top_n) in enumerate(zip(g.unbind(0), top.unbind(0), strict=True)):
        torch.maximum(steps[n] + g_n, top_n, out=steps[n + 1])
    into_row = b_in + m[:-1, ..., None]
    # far below 0 h is 0 whatever m is; a gradient of a fresh state, exp(b - m) / exp(-m), is not
    bound = exp_bound(dtype)
    row_m = torch.maximum(into_row, row_top).clamp_(min=-0.7 * bound)

    # differences in float64, results in the compute dtype
    within = torch.empty(N, B, H, L, L, dtype=dtype, device=device)
    log_scale = math.log(scale)
    row = b - row_m + log_scale
    torch.add(row[..., :, None], c[..., None, :], out=within)
    _weight_(within.clamp_(-bound, 0))  # above 0 only right of the diagonal
    if starts is None:
        within.tril_()
    else:
        within.masked_fill_(apart, 0)
    if fresh is not None:
        # what a fresh state weighs, relative to its m of 0, is for its gradient alone
        m = F.threshold(m, 0.1 * _NOTHING, 0.0)
        into_row = b_in + m[:-1, ..., None]
    carried, decay = into_row - row_m + log_scale, g + m[:-1] - m[1:]
    if fresh is not None:
        carried.clamp_(max=0.7 * bound)
        decay.clamp_(max=0.7 * bound)
    return Gates(
        within,
        _weight_(carried.to(dtype)),
        row_m.clamp_(max=bound).neg_().exp_().to(dtype),
        _weight_((last_log - m[1:, ..., None]).to(dtype)),
        _weight_(decay.to(dtype)),
        F.threshold(m[-1], 0.1 * _NOTHING, 0.0).to(dtype),
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
