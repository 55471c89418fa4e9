"""Gradients of the mLSTM's gates: reverse sums inside each episode."""

import torch
from torch import Tensor

from xlstm_rl.kernels.mlstm.gates import Layout, log_forget_gate


def gate_grads(
    layout: Layout,
    qdq: Tensor,
    kdk: Tensor,
    final: Tensor | None,
    dm: Tensor | None,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    m_0: Tensor | None,
    forget_gate: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """``di, df [B, T, H]`` and the part of ``dm_0 [B, H]`` that comes through the maximum.

    Args:
        layout: how the sequence was cut.
        qdq: ``q . dq`` at every step, ``[N, B, H, L]``.
        kdk: ``k . dk`` at every step.
        final: ``<C_T, dC_T> + <n_T, dn_T>``, ``[B, H]``, or ``None`` for zero.
        dm: gradient of the final m, or ``None`` for zero.
        i: the input gate's pre-activations.
        f: the forget gate's.
        reset: ``[B, T]``.
        m_0: the first m, or ``None`` for zero.
        forget_gate: its kind.
    """
    B, T, H, _, _ = layout
    di = _join(layout, kdk)  # [B, T, H] in float64
    flow = _join(layout, qdq) - di
    total = flow.cumsum(1)
    if reset is None:
        later = total[:, -1:] - total + flow
        in_last = carries = None
    else:
        ends, in_last = _segments(reset)
        carries = ~reset.any(1)[:, None]  # [B, 1] whether the first state reaches the last one
        later = total.gather(1, ends[..., None].expand(B, T, H)) - total + flow
    if final is not None:
        add = final[:, None].expand(B, T, H).to(flow.dtype)
        later = later + (add if in_last is None else add.masked_fill(~in_last[..., None], 0))
    if reset is not None:
        later = later.masked_fill(reset[..., None], 0)

    dm_0 = torch.zeros(B, H, dtype=flow.dtype, device=flow.device)
    if final is not None or dm is not None:
        # C_T = exp(-m_T) times something without m: what is left for m itself
        rest = dm_0 if dm is None else dm.to(flow.dtype)
        rest = rest if final is None else rest - final
        to_i, to_f, dm_0 = _through_maximum(rest, i, f, in_last, carries, m_0, forget_gate)
        di, later = di + to_i, later + to_f
    df = later * torch.sigmoid(-f.to(flow.dtype)) if forget_gate == "sigmoid" else later
    dtype = qdq.dtype
    return di.to(dtype), df.to(dtype), dm_0.to(dtype)


def _through_maximum(
    dm: Tensor,
    i: Tensor,
    f: Tensor,
    in_last: Tensor | None,
    carries: Tensor | None,
    m_0: Tensor | None,
    forget_gate: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Hand the gradient of the final m to the one candidate that it equals.

    The candidates: the m before the last episode, forgotten by all its steps, and every one of
    its input gates, forgotten by the steps behind it. On a tie the oldest takes all.
    """
    log_f = log_forget_gate(f, forget_gate).to(dm.dtype)
    if in_last is not None:
        log_f = log_f.masked_fill(~in_last[..., None], 0)
    total = log_f.cumsum(1)
    candidates = total[:, -1:] - total + i
    if in_last is not None:
        candidates = candidates.masked_fill(~in_last[..., None], -torch.inf)
    start = total[:, -1]
    if m_0 is not None:
        # a reset anywhere leaves the fresh m = 0 before the last episode
        start = start + (m_0 if carries is None else m_0.masked_fill(~carries, 0))
    best, index = candidates.max(1)
    from_start = start >= best  # [B, H]
    to_i = torch.zeros_like(total).scatter_(
        1, index[:, None], dm.masked_fill(from_start, 0)[:, None]
    )
    steps = torch.arange(i.shape[1], device=i.device)[:, None]
    forgotten = from_start[:, None] | (steps > index[:, None])  # [B, T, H]
    if in_last is not None:
        forgotten = forgotten & in_last[..., None]
    to_f = dm[:, None] * forgotten
    dm_0 = dm.masked_fill(~from_start, 0)
    if carries is not None:
        dm_0 = dm_0.masked_fill(~carries, 0)
    return to_i, to_f, dm_0


def _segments(reset: Tensor) -> tuple[Tensor, Tensor]:
    """The last step of every step's episode, and whether that is the sequence's last one."""
    B, T = reset.shape
    steps = torch.arange(T, device=reset.device)
    starts = torch.where(reset, steps, T)
    after = torch.cat([starts[:, 1:], starts.new_full((B, 1), T)], 1)  # resets at t + 1 .. T - 1
    ends = after.flip(1).cummin(1).values.flip(1) - 1
    return ends, ends == T - 1


def _join(layout: Layout, x: Tensor) -> Tensor:
    """``[N, B, H, L]`` as ``[B, T, H]`` in float64."""
    B, T, H, N, L = layout
    return x.permute(1, 0, 3, 2).reshape(B, N * L, H)[:, :T].to(torch.float64)
