"""The mLSTM as matrix products over chunks, with its exact backward written by hand.

Source: the chunkwise form follows from unrolling equations 19-27 of Beck et al. 2024 over a chunk;
kernels/EQUATIONS.md derives it together with the backward. ``n`` rides along as one more column of
``C``, written by one more value that is always 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from xlstm_rl.kernels.mlstm.broken_rows import differentiate_again, find_broken, run_again
from xlstm_rl.kernels.mlstm.gate_grads import gate_grads
from xlstm_rl.kernels.mlstm.gates import (
    Gates,
    Layout,
    choose_layout,
    find_starts,
    log_forget_gate,
    make_gates,
)
from xlstm_rl.kernels.mlstm.reference import fresh_rows
from xlstm_rl.kernels.types import any_reset, compute_dtype, restart


class Saved(NamedTuple):
    """What the backward reads again; ``X`` stands for the leading axes ``[N, B, H]``."""

    q: Tensor
    """``[X, L, K]``."""
    k: Tensor
    """``[X, L, K]``."""
    v: Tensor
    """``[X, L, V + 1]``, the last column all ones."""
    scores: Tensor
    """``[X, L, L]``: weights times ``q k^T``."""
    states: Tensor
    """``[N + 1, B, H, K, V + 1]``: C and n before every chunk, and behind the last one."""
    sums: Tensor
    """``[X, L]``: ``q . n``, scaled."""
    within: Tensor
    """As in `Gates`, like the four that follow."""
    carried: Tensor
    floor: Tensor
    last: Tensor
    decay: Tensor


class Grads(NamedTuple):
    """Gradients in the shapes and dtypes of the inputs, those of the state maybe ``None``."""

    q: Tensor
    k: Tensor
    v: Tensor
    i: Tensor
    f: Tensor
    C: Tensor | None
    n: Tensor | None
    m: Tensor | None


def chunkwise_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    C_0: Tensor | None,
    n_0: Tensor | None,
    m_0: Tensor | None,
    chunk_size: int,
    forget_gate: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Saved]:
    """``h [B, T, H, V]``, the final C, n, m and what the backward needs."""
    (B, T, H, K), V = q.shape, v.shape[-1]
    dtype = compute_dtype(q.dtype)
    layout = choose_layout(B, T, H, chunk_size, wide=q.is_cuda)
    log_f = log_forget_gate(f, forget_gate)
    starts, fresh = find_starts(f, reset), _find_fresh(C_0, n_0, m_0)
    gates = make_gates(layout, i, log_f, starts, m_0, fresh, K**-0.5)
    qc, kc, vc = _tile(layout, q, dtype), _tile(layout, k, dtype), _tile(layout, v, dtype, True)
    states = _scan_states(layout, kc, vc, gates, C_0, n_0, reset)

    scores = _bmm(qc, kc.mT).mul_(gates.within)
    sums = _bmm(scores, vc)  # [N, B, H, L, V + 1]: numerator and q . n
    s = 1 if C_0 is None else 0  # a fresh state has nothing to say to the first chunk
    if s < layout.N:
        carried = gates.carried[s:, ..., None]
        if fresh is not None:  # there it may be large, and inf * 0 is NaN
            carried = carried.clamp(max=1)
        seen = qc[s:] * carried
        _baddbmm_(sums[s:], seen, states[s:-1])
    qn = sums[..., V].contiguous()
    den = torch.maximum(qn.abs(), gates.floor)
    h = torch.empty(B, T, H, V, dtype=v.dtype, device=v.device)
    layout.join(sums[..., :V].div_(den[..., None]), h)
    saved = Saved(qc, kc, vc, scores, states, qn, *gates[:5])
    outputs = h, _copy(states[-1, ..., :V]), _copy(states[-1, ..., V]), gates.m
    # a query that is not finite stays in its row by itself, all else is seen in the final state
    broken = find_broken(states[-1:])
    if broken is not None:
        state = None if C_0 is None or n_0 is None or m_0 is None else (C_0, n_0, m_0)
        run_again(broken, (q, k, v, i, f), reset, state, forget_gate, outputs)
    return *outputs, saved


def chunkwise_backward(
    dh: Tensor | None,
    dC: Tensor | None,
    dn: Tensor | None,
    dm: Tensor | None,
    h: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    m_0: Tensor | None,
    saved: Saved,
    forget_gate: str,
) -> Grads:
    """The gradients of every input; a ``None`` among the incoming ones is zero."""
    q, k, v, scores, states, qn, within, carried, floor, last, decay = saved
    (N, B, H, L), T, V = q.shape[:4], h.shape[1], h.shape[-1]
    layout, has_state = Layout(B, T, H, N, L), m_0 is not None

    dnum = _numerator_grads(layout, dh, h, qn, floor, V)  # [N, B, H, L, V + 1]
    dscores = _bmm(dnum, v.mT).mul_(within)
    dq, dk = _bmm(dscores, k), _bmm(dscores.mT, q)
    dv = _bmm(scores.mT, dnum[..., :V])

    s = 0 if has_state else 1
    if s < N:
        dq[s:].addcmul_(_bmm(dnum[s:], states[s:-1].mT), carried[s:, ..., None])
    to_last = dC is not None or dn is not None
    e = N if to_last else N - 1
    dstates = _scan_grads(q, dnum, carried, decay, dC, dn, s, e)
    if e > 0:
        behind = dstates[1 : e + 1]
        dk[:e].addcmul_(_bmm(v[:e], behind.mT), last[:e, ..., None])
        dv[:e].addcmul_(_bmm(k[:e], behind[..., :V]), last[:e, ..., None])

    final = (states[-1] * dstates[-1]).sum((-2, -1)) if to_last else None
    qdq, kdk = (q * dq).sum(-1), (k * dk).sum(-1)
    first = None
    if m_0 is not None:
        fresh = _find_fresh(states[0, ..., :V], states[0, ..., V], m_0)
        first = m_0 if fresh is None else m_0.masked_fill(fresh, -torch.inf)
    starts = find_starts(f, reset)
    log_f = log_forget_gate(f, forget_gate) if to_last or dm is not None else None
    di, dlf, dm_0 = gate_grads(layout, qdq, kdk, final, dm, i, log_f, starts, first)
    df = dlf * torch.sigmoid(-f.to(dlf.dtype)) if forget_gate == "sigmoid" else dlf
    dC_0 = dn_0 = None
    if has_state:
        dC_0, dn_0 = _copy(dstates[0, ..., :V]), _copy(dstates[0, ..., V])
        dm_0 = dm_0 + (states[0] * dstates[0]).sum((-2, -1))
    outs = []
    for x in (dq, dk, dv):
        out = torch.empty(B, T, H, x.shape[-1], dtype=h.dtype, device=h.device)
        outs.append(layout.join(x, out))
    dq, dk, dv = outs
    grads = Grads(
        *(dq, dk, dv, di.to(i.dtype), df.to(f.dtype)), dC_0, dn_0, dm_0 if has_state else None
    )
    broken = find_broken(qdq, kdk)
    if broken is not None:
        given = (q, k, v[..., :V])
        inputs = *(layout.join(x, x.new_empty(B, T, H, x.shape[-1])) for x in given), i, f
        state = None if m_0 is None else (states[0, ..., :V], states[0, ..., V], m_0)
        incoming, outgoing = (dh, dC, dn, dm), tuple(g for g in grads if g is not None)
        differentiate_again(broken, inputs, reset, state, forget_gate, incoming, outgoing)
    return grads


def _find_fresh(C: Tensor | None, n: Tensor | None, m: Tensor | None) -> Tensor | None:
    """The rows of `fresh_rows`, or ``None`` where it is plain to see that there are none."""
    if C is None or n is None or m is None:
        return None
    if not any_reset(m == 0):
        return None
    return fresh_rows(C, n, m)


def _numerator_grads(
    layout: Layout, dh: Tensor | None, h: Tensor, qn: Tensor, floor: Tensor, V: int
) -> Tensor:
    """Gradients of the V numerators and of ``q . n`` in every row, ``[X, L, V + 1]``."""
    dnum = torch.empty(*qn.shape, V + 1, dtype=qn.dtype, device=qn.device)
    if dh is None:
        return dnum.zero_()
    size = qn.abs()
    den = torch.maximum(size, floor)
    torch.div(layout.cut(dh), den[..., None], out=dnum[..., :V])
    along = layout.cut((dh.to(qn.dtype) * h).sum(-1))  # dh . h
    ds = (along / den).neg_().mul_(qn.sign()).masked_fill_(size <= floor, 0)
    dnum[..., V] = ds
    return dnum


def _scan_states(
    layout: Layout,
    k: Tensor,
    v: Tensor,
    gates: Gates,
    C_0: Tensor | None,
    n_0: Tensor | None,
    reset: Tensor | None,
) -> Tensor:
    """The states between the chunks, ``[N + 1, B, H, K, V + 1]``."""
    N, B, H, _, K = k.shape
    V = v.shape[-1] - 1
    states = torch.empty(N + 1, B, H, K, V + 1, dtype=k.dtype, device=k.device)
    written = k * gates.last[..., None]
    _bmm(written.mT, v, out=states[1:])
    if C_0 is None or n_0 is None:
        states[0] = 0
    else:
        if reset is not None:
            C_0, n_0 = restart(C_0, reset[:, 0]), restart(n_0, reset[:, 0])
        states[0, ..., :V] = C_0
        states[0, ..., V] = n_0
    each, decay = states.unbind(0), gates.decay[..., None, None].unbind(0)
    for t in range(1 if C_0 is None else 0, N):
        each[t + 1].addcmul_(each[t], decay[t])
    return states


def _scan_grads(
    q: Tensor,
    dnum: Tensor,
    carried: Tensor,
    decay: Tensor,
    dC: Tensor | None,
    dn: Tensor | None,
    s: int,
    e: int,
) -> Tensor:
    """Gradients of the states between the chunks: those before chunk ``s`` are not needed."""
    N, B, H, _, K = q.shape
    V = dnum.shape[-1] - 1
    dstates = torch.empty(N + 1, B, H, K, V + 1, dtype=q.dtype, device=q.device)
    if e == N:
        dstates[N, ..., :V] = 0 if dC is None else dC
        dstates[N, ..., V] = 0 if dn is None else dn
    if s < N:
        # a fresh state's weight may be large where dnum is small: their product first
        _bmm(q[s:].mT, dnum[s:] * carried[s:, ..., None], out=dstates[s:N])
    each, rates = dstates.unbind(0), decay[..., None, None].unbind(0)
    for t in range(e - 1, s - 1, -1):
        each[t].addcmul_(each[t + 1], rates[t])
    return dstates


def _tile(layout: Layout, x: Tensor, dtype: torch.dtype, ones: bool = False) -> Tensor:
    """Contiguous chunks ``[N, B, H, L, *]``, if asked with one more column of ones."""
    B, _, H, N, L = layout
    D = x.shape[-1]
    tile = torch.empty(N, B, H, L, D + ones, dtype=dtype, device=x.device)
    tile[..., :D].copy_(layout.cut(x))
    if ones:
        tile[..., D] = 1
    return tile


def _copy(x: Tensor) -> Tensor:
    """A contiguous copy, of a single row too: an op's outputs may not share memory."""
    return x.clone(memory_format=torch.contiguous_format)


def _bmm(a: Tensor, b: Tensor, out: Tensor | None = None) -> Tensor:
    """Products over three leading axes, without matmul's reshaping and expanding."""
    if out is None:
        out = torch.empty(*a.shape[:4], b.shape[4], dtype=a.dtype, device=a.device)
    torch.bmm(a.flatten(0, 2), b.flatten(0, 2), out=out.flatten(0, 2))
    return out


def _baddbmm_(out: Tensor, a: Tensor, b: Tensor) -> None:
    out.flatten(0, 2).baddbmm_(a.flatten(0, 2), b.flatten(0, 2))
