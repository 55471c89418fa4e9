"""One step of the mLSTM in one launch: gates, state and what is read out of it.

A program owns a whole head of one environment, so that a state can be overwritten in place: no
other program reads what it writes.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.launch import launch
from xlstm_rl.kernels.mlstm.triton.gates import is_fresh, log_forget_gate
from xlstm_rl.kernels.mlstm.triton.tiles import pad
from xlstm_rl.kernels.mlstm.triton.weights import denominator
from xlstm_rl.kernels.products import narrow
from xlstm_rl.kernels.types import LEAST_LOG_FORGET, MLSTMState, exp_bound


def step_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: MLSTMState | None,
    forget_gate: str,
    inplace: bool,
) -> tuple[Tensor, MLSTMState]:
    """``h [B, H, V]`` and the state after the step, overwritten if ``inplace``."""
    (B, H, K), V = q.shape, v.shape[-1]
    C, n, m = (None, None, None) if state is None else tuple(s.contiguous() for s in state)
    if inplace and C is not None and n is not None and m is not None:
        after = (C, n, m)
    else:
        C_new, n_new, m_new = (
            q.new_empty(shape, dtype=torch.float32) for shape in ((B, H, K, V), (B, H, K), (B, H))
        )
        after = C_new, n_new, m_new
    h = v.new_empty((B, H, V))
    launch(
        q.device,
        mlstm_step_kernel,
        (B * H,),
        **_inputs(q, k, v, i, f, reset),
        C_ptr=C,
        n_ptr=n,
        m_ptr=m,
        C_new_ptr=after[0],
        n_new_ptr=after[1],
        m_new_ptr=after[2],
        h_ptr=h,
        **_sizes(q, v, forget_gate),
    )
    if inplace and state is not None:
        note_overwritten(s for s, a in zip(state, after, strict=True) if s is a)
        for s, a in zip(state, after, strict=True):
            if s is not a:  # it had to be made contiguous
                s.copy_(a)
        return h, state
    return h, after


def step_backward(
    grads: tuple[Tensor | None, ...],
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: MLSTMState | None,
    forget_gate: str,
) -> list[Tensor]:
    """The gradients of q, k, v, i, f and, if there was a state, of C, n, m (in float32).

    ``grads`` are those of h, C, n, m; ``None`` is zero.
    """
    (B, H, K), V = q.shape, v.shape[-1]
    C, n, m = (None, None, None) if state is None else tuple(s.contiguous() for s in state)
    dh, dC, dn, dm = (None if g is None else g.contiguous() for g in grads)
    outs = [q.new_empty((B, H, D)) for D in (K, K, V)]
    outs += [x.new_empty((B, H)) for x in (i, f)]
    if state is not None:
        shapes = (B, H, K, V), (B, H, K), (B, H)
        outs += [q.new_empty(shape, dtype=torch.float32) for shape in shapes]
    names = ("dq_ptr", "dk_ptr", "dv_ptr", "di_ptr", "df_ptr", "dC_0_ptr", "dn_0_ptr", "dm_0_ptr")
    given = dict.fromkeys(names) | dict(zip(names, outs, strict=False))
    launch(
        q.device,
        mlstm_step_bwd_kernel,
        (B * H,),
        **_inputs(q, k, v, i, f, reset),
        C_ptr=C,
        n_ptr=n,
        m_ptr=m,
        dh_ptr=dh,
        dC_ptr=dC,
        dn_ptr=dn,
        dm_ptr=dm,
        **given,
        **_sizes(q, v, forget_gate),
    )
    return outs


def _inputs(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reset: Tensor | None
) -> dict[str, object]:
    arguments: dict[str, object] = {}
    for name, x in (("q", q), ("k", k), ("v", v), ("i", i), ("f", f)):
        if name in "qkv" and x.stride(-1) != 1:
            x = x.contiguous()
        arguments |= {f"{name}_ptr": x, f"stride_{name}b": x.stride(0)}
        arguments[f"stride_{name}h"] = x.stride(1)
    reset = None if reset is None else reset.contiguous()
    return arguments | {"reset_ptr": reset}


def _sizes(q: Tensor, v: Tensor, forget_gate: str) -> dict[str, object]:
    (_, H, K), V = q.shape, v.shape[-1]
    block_k = pad(K)
    return {
        "H": H,
        "K": K,
        "V": V,
        "scale": K**-0.5,
        "SIGMOID": forget_gate == "sigmoid",
        "LEAST_LOG_F": LEAST_LOG_FORGET,
        "BOUND": exp_bound(torch.float32),
        "BLOCK_K": block_k,
        "BLOCK_V": min(pad(V), max(8, 2048 // block_k)),
        "num_warps": 4 if block_k * V >= 1024 else 1,
    }


@triton.jit
def _gates(
    i_ptr,
    f_ptr,
    reset_ptr,
    C_ptr,
    n_ptr,
    m_ptr,
    i_at,
    f_at,
    bh,
    batch,
    K,
    V,
    SIGMOID: tl.constexpr,
    LEAST_LOG_F: tl.constexpr,
    BOUND: tl.constexpr,
):
    """Return f, whether the step is a first, the weights of state and input, m and its source.

    The source is 1 where m comes from the state's, -1 from the input gate, 0 from neither.
    """
    i = tl.load(i_ptr + i_at).to(tl.float64)
    f = tl.load(f_ptr + f_at)
    log_f = log_forget_gate(f, SIGMOID)
    first = log_f < LEAST_LOG_F  # forgets all, as a reset does
    if reset_ptr is not None:
        first = first | (tl.load(reset_ptr + batch) != 0)
    m = tl.zeros([], tl.float64)
    nothing = True
    if m_ptr is not None:
        m += tl.load(m_ptr + bh).to(tl.float64)
        nothing = is_fresh(C_ptr, n_ptr, m, bh, K, V)
    m = tl.where(first, 0.0, m)
    # what holds nothing has no say in m; the least number stands for -inf
    log_old = tl.where((first | nothing) & (log_f == log_f), -3e38, m + log_f)
    older = log_old >= i
    m_new = tl.where(older, log_old, tl.maximum(log_old, i, propagate_nan=tl.PropagateNan.ALL))
    empty = m_new <= -2e38
    source = tl.where(empty, 0, tl.where(older, 1, -1))
    m_new = tl.where(empty, 0.0, m_new)
    # above 0 only where there is nothing to forget; inf * 0 is NaN
    log = tl.minimum(m + log_f - m_new, BOUND, propagate_nan=tl.PropagateNan.ALL)
    forget = tl.exp(log.to(tl.float32))
    write = tl.exp((i - m_new).to(tl.float32))
    return f.to(tl.float32), first, forget, write, m_new.to(tl.float32), source


@triton.jit
def mlstm_step_kernel(
    q_ptr,  # [B, H, K]
    k_ptr,  # [B, H, K]
    v_ptr,  # [B, H, V]
    i_ptr,  # [B, H]
    f_ptr,  # [B, H]
    reset_ptr,  # [B] or None
    C_ptr,  # [B, H, K, V] or None
    n_ptr,  # [B, H, K] or None
    m_ptr,  # [B, H] or None
    C_new_ptr,  # may be C_ptr
    n_new_ptr,  # may be n_ptr
    m_new_ptr,  # may be m_ptr
    h_ptr,  # [B, H, V]
    H,
    K,
    V,
    scale,
    stride_qb,
    stride_qh,
    stride_kb,
    stride_kh,
    stride_vb,
    stride_vh,
    stride_ib,
    stride_ih,
    stride_fb,
    stride_fh,
    SIGMOID: tl.constexpr,
    LEAST_LOG_F: tl.constexpr,
    BOUND: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Run the step of one head of one environment."""
    bh = tl.program_id(0).to(tl.int64)
    batch, head = bh // H, bh % H
    i_at = batch * stride_ib + head * stride_ih
    f_at = batch * stride_fb + head * stride_fh
    _, fresh, forget, write, m, _ = _gates(
        i_ptr,
        f_ptr,
        reset_ptr,
        C_ptr,
        n_ptr,
        m_ptr,
        i_at,
        f_at,
        bh,
        batch,
        K,
        V,
        SIGMOID,
        LEAST_LOG_F,
        BOUND,
    )
    kd = tl.arange(0, BLOCK_K)
    in_k = kd < K
    q = tl.load(q_ptr + batch * stride_qb + head * stride_qh + kd, in_k, other=0.0)
    k = tl.load(k_ptr + batch * stride_kb + head * stride_kh + kd, in_k, other=0.0)
    q, k = q.to(tl.float32) * scale, k.to(tl.float32) * write
    n = k
    if n_ptr is not None:
        old = tl.load(n_ptr + bh * K + kd, in_k, other=0.0).to(tl.float32)
        n += tl.where(fresh, 0.0, old * forget)
    floor = tl.exp(-tl.minimum(tl.maximum(m, -BOUND), BOUND))
    den = denominator(tl.sum(q * n, 0), floor)
    tl.debug_barrier()  # every warp has read all of m and n before one overwrites them
    tl.store(n_new_ptr + bh * K + kd, narrow(n, n_new_ptr.dtype.element_ty), in_k)
    tl.store(m_new_ptr + bh, narrow(m, m_new_ptr.dtype.element_ty))
    for start in range(0, V, BLOCK_V):
        vd = start + tl.arange(0, BLOCK_V)
        in_v = vd < V
        at = bh * K * V + kd[:, None] * V + vd[None, :]
        inside = in_k[:, None] & in_v[None, :]
        v = tl.load(v_ptr + batch * stride_vb + head * stride_vh + vd, in_v, other=0.0)
        C = k[:, None] * v.to(tl.float32)[None, :]
        if C_ptr is not None:
            old_C = tl.load(C_ptr + at, inside, other=0.0).to(tl.float32)
            C += tl.where(fresh, 0.0, old_C * forget)
        tl.store(C_new_ptr + at, narrow(C, C_new_ptr.dtype.element_ty), inside)
        h = tl.sum(q[:, None] * C, 0) / den
        tl.store(h_ptr + bh * V + vd, narrow(h, h_ptr.dtype.element_ty), in_v)


@triton.jit
def mlstm_step_bwd_kernel(
    q_ptr,  # [B, H, K]
    k_ptr,  # [B, H, K]
    v_ptr,  # [B, H, V]
    i_ptr,  # [B, H]
    f_ptr,  # [B, H]
    reset_ptr,  # [B] or None
    C_ptr,  # [B, H, K, V] or None
    n_ptr,  # [B, H, K] or None
    m_ptr,  # [B, H] or None
    dh_ptr,  # [B, H, V] or None
    dC_ptr,  # [B, H, K, V] or None
    dn_ptr,  # [B, H, K] or None
    dm_ptr,  # [B, H] or None
    dq_ptr,
    dk_ptr,
    dv_ptr,
    di_ptr,
    df_ptr,
    dC_0_ptr,  # None without a state, as the two that follow
    dn_0_ptr,
    dm_0_ptr,
    H,
    K,
    V,
    scale,
    stride_qb,
    stride_qh,
    stride_kb,
    stride_kh,
    stride_vb,
    stride_vh,
    stride_ib,
    stride_ih,
    stride_fb,
    stride_fh,
    SIGMOID: tl.constexpr,
    LEAST_LOG_F: tl.constexpr,
    BOUND: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Differentiate the step of one head of one environment."""
    bh = tl.program_id(0).to(tl.int64)
    batch, head = bh // H, bh % H
    i_at = batch * stride_ib + head * stride_ih
    f_at = batch * stride_fb + head * stride_fh
    f, fresh, forget, write, m, source = _gates(
        i_ptr,
        f_ptr,
        reset_ptr,
        C_ptr,
        n_ptr,
        m_ptr,
        i_at,
        f_at,
        bh,
        batch,
        K,
        V,
        SIGMOID,
        LEAST_LOG_F,
        BOUND,
    )
    kd = tl.arange(0, BLOCK_K)
    in_k = kd < K
    q = tl.load(q_ptr + batch * stride_qb + head * stride_qh + kd, in_k, other=0.0)
    k = tl.load(k_ptr + batch * stride_kb + head * stride_kh + kd, in_k, other=0.0)
    q, k = q.to(tl.float32) * scale, k.to(tl.float32)
    old = tl.zeros([BLOCK_K], tl.float32)
    if n_ptr is not None:
        old += tl.load(n_ptr + bh * K + kd, in_k, other=0.0).to(tl.float32)
        old = tl.where(fresh, 0.0, old)
    n = old * forget + k * write
    qn = tl.sum(q * n, 0)
    floor = tl.exp(-tl.minimum(tl.maximum(m, -BOUND), BOUND))
    den = denominator(qn, floor)

    dq = tl.zeros([BLOCK_K], tl.float32)
    dk = tl.zeros([BLOCK_K], tl.float32)
    along = tl.zeros([], tl.float32)  # dh . h
    kept = tl.zeros([], tl.float32)  # of the old state with the gradient of the new one
    final = tl.zeros([], tl.float32)  # of the new state with what a loss wants of it
    for start in range(0, V, BLOCK_V):
        vd = start + tl.arange(0, BLOCK_V)
        in_v = vd < V
        at = kd[:, None] * V + vd[None, :]
        inside = in_k[:, None] & in_v[None, :]
        v = tl.load(v_ptr + batch * stride_vb + head * stride_vh + vd, in_v, other=0.0)
        v = v.to(tl.float32)
        old_C = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
        if C_ptr is not None:
            old_C += tl.load(C_ptr + bh * K * V + at, inside, other=0.0).to(tl.float32)
            old_C = tl.where(fresh, 0.0, old_C)
        C = old_C * forget + (k * write)[:, None] * v[None, :]
        dC = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
        if dC_ptr is not None:
            dC += tl.load(dC_ptr + bh * K * V + at, inside, other=0.0)
            final += tl.sum(tl.sum(C * dC, 1), 0)
        if dh_ptr is not None:
            dh = tl.load(dh_ptr + bh * V + vd, in_v, other=0.0).to(tl.float32) / den
            dC += q[:, None] * dh[None, :]
            dq += tl.sum(C * dh[None, :], 1)
            along += tl.sum(tl.sum(q[:, None] * C, 0) * dh, 0)
        dv = tl.sum(k[:, None] * dC, 0) * write
        tl.store(dv_ptr + bh * V + vd, narrow(dv, dv_ptr.dtype.element_ty), in_v)
        dk += tl.sum(dC * v[None, :], 1)
        kept += tl.sum(tl.sum(old_C * dC, 1), 0)
        if dC_0_ptr is not None:
            tl.store(dC_0_ptr + bh * K * V + at, tl.where(fresh, 0.0, dC * forget), inside)

    counts = tl.abs(qn) > floor
    ds = tl.where(counts, -along / tl.where(counts, qn, 1.0), 0.0)
    dn = ds * q
    if dn_ptr is not None:
        given = tl.load(dn_ptr + bh * K + kd, in_k, other=0.0)
        final += tl.sum(n * given, 0)
        dn += given
    dq = (dq + ds * n) * scale
    dk = (dk + dn) * write
    kept = (kept + tl.sum(old * dn, 0)) * forget
    di = tl.sum(k * dk, 0)
    rest = -final
    if dm_ptr is not None:
        rest += tl.load(dm_ptr + bh)
    di += tl.where(source == -1, rest, 0.0)
    kept = tl.where(fresh, 0.0, kept) + tl.where(source == 1, rest, 0.0)
    df = kept
    if SIGMOID:
        df = kept * tl.sigmoid(-tl.minimum(f, 88.0))
    tl.store(dq_ptr + bh * K + kd, narrow(dq, dq_ptr.dtype.element_ty), in_k)
    tl.store(dk_ptr + bh * K + kd, narrow(dk, dk_ptr.dtype.element_ty), in_k)
    tl.store(di_ptr + bh, narrow(di, di_ptr.dtype.element_ty))
    tl.store(df_ptr + bh, narrow(df, df_ptr.dtype.element_ty))
    if dC_0_ptr is not None:
        tl.store(dn_0_ptr + bh * K + kd, tl.where(fresh, 0.0, dn * forget), in_k)
        tl.store(dm_0_ptr + bh, tl.where(fresh, 0.0, kept))
