"""Gradients of the mLSTM's gates: reverse sums inside each episode."""

import torch
from torch import Tensor

from xlstm_rl.kernels.mlstm.gates import Layout


def gate_grads(
    layout: Layout,
    qdq: Tensor,
    kdk: Tensor,
    final: Tensor | None,
    dm: Tensor | None,
    i: Tensor,
    log_f: Tensor | None,
    starts: Tensor | None,
    m_0: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """``di, dlog_f [B, T, H]`` and the part of ``dm_0 [B, H]`` that comes through the maximum.

    Args:
        layout: how the sequence was cut.
        qdq: ``q . dq`` at every step, ``[N, B, H, L]``.
        kdk: ``k . dk`` at every step.
        final: ``<C_T, dC_T> + <n_T, dn_T>``, ``[B, H]``, or ``None`` for zero.
        dm: gradient of the final m, or ``None`` for zero.
        i: the input gate's pre-activations.
        log_f: the logarithms of the forget gate; ``None`` will do where final and dm are.
        starts: where a memory begins anew, ``[B, T, 1 or H]``, or ``None``.
        m_0: the first m, -inf where the first state is fresh, or ``None``.
    """
    B, T, H, _, _ = layout
    di = _join(layout, kdk)  # [B, T, H] in float64
    flow = _join(layout, qdq) - di
    total = flow.cumsum(1)
    if starts is None:
        later = total[:, -1:] - total + flow
        in_last = carries = None
    else:
        ends, in_last = _segments(starts)
        carries = ~starts.any(1)  # [B, 1 or H] whether the first state reaches the last one
        later = total.gather(1, ends.expand(B, T, H)) - total + flow
    if final is not None:
        add = final[:, None].expand(B, T, H).to(flow.dtype)
        later = later + (add if in_last is None else add.masked_fill(~in_last, 0))
    if starts is not None:
        later = later.masked_fill(starts, 0)

    dm_0 = torch.zeros(B, H, dtype=flow.dtype, device=flow.device)
    if log_f is not None and (final is not None or dm is not None):
        # C_T = exp(-m_T) times something without m: what is left for m itself
        rest = dm_0 if dm is None else dm.to(flow.dtype)
        rest = rest if final is None else rest - final
        forgotten = log_f.to(flow.dtype)
        if starts is not None and in_last is not None:
            # what a start forgets is nobody's, and -inf would spoil the sums
            forgotten = forgotten.masked_fill(~in_last | starts, 0)
        to_i, to_f, dm_0 = _through_maximum(rest, i, forgotten, in_last, carries, m_0)
        di, later = di + to_i, later + to_f
    dtype = qdq.dtype
    return di.to(dtype), later.to(dtype), dm_0.to(dtype)


def _through_maximum(
    dm: Tensor,
    i: Tensor,
    log_f: Tensor,
    in_last: Tensor | None,
    carries: Tensor | None,
    m_0: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Hand the gradient of the final m to the one candidate that it equals.

    The candidates: the first m, if there is one and no memory began anew, forgotten by all steps,
    and every input gate of the last episode, forgotten by the steps behind it; ``log_f`` is 0
    where that episode begins and before it. On a tie the oldest takes all; where all are -inf,
    the final m is 0 and nobody's.
    """
    total = log_f.cumsum(1)
    candidates = total[:, -1:] - total + i
    if in_last is not None:
        candidates = candidates.masked_fill(~in_last, -torch.inf)
    best, index = candidates.max(1)
    start = torch.full_like(best, -torch.inf)
    if m_0 is not None:
        start = total[:, -1] + m_0
        if carries is not None:
            start = start.masked_fill(~carries, -torch.inf)
    dm = dm.masked_fill(torch.maximum(best, start) == -torch.inf, 0)
    from_start = start >= best  # [B, H]
    to_i = torch.zeros_like(total).scatter_(
        1, index[:, None], dm.masked_fill(from_start, 0)[:, None]
    )
    steps = torch.arange(i.shape[1], device=i.device)[:, None]
    forgotten = from_start[:, None] | (steps > index[:, None])  # [B, T, H]
    if in_last is not None:
        forgotten = forgotten & in_last
    to_f = torch.where(forgotten, dm[:, None], 0)
    return to_i, to_f, dm.masked_fill(~from_start, 0)


def _segments(starts: Tensor) -> tuple[Tensor, Tensor]:
    """The last step of every step's episode, and whether that is the sequence's last one."""
    T = starts.shape[1]
    steps = torch.arange(T, device=starts.device)[:, None]
    at = torch.where(starts, steps, T)
    after = torch.cat([at[:, 1:], torch.full_like(at[:, :1], T)], 1)  # starts at t + 1 .. T - 1
    ends = after.flip(1).cummin(1).values.flip(1) - 1
    return ends, ends == T - 1


def _join(layout: Layout, x: Tensor) -> Tensor:
    """``[N, B, H, L]`` as ``[B, T, H]`` in float64."""
    B, T, H, N, L = layout
    return x.permute(1, 0, 3, 2).reshape(B, N * L, H)[:, :T].to(torch.float64)
