"""The gradients of one step of the mLSTM in one launch; a program owns a head of an environment."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.launch import launch
from xlstm_rl.kernels.mlstm.triton.step_prologue import begin_step, step_inputs, step_sizes
from xlstm_rl.kernels.mlstm.triton.weights import denominator
from xlstm_rl.kernels.products import narrow
from xlstm_rl.kernels.types import MLSTMState


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
        **step_inputs(q, k, v, i, f, reset),
        C_ptr=C,
        n_ptr=n,
        m_ptr=m,
        dh_ptr=dh,
        dC_ptr=dC,
        dn_ptr=dn,
        dm_ptr=dm,
        **given,
        **step_sizes(q, v, forget_gate),
    )
    return outs


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
    f, fresh, forget, write, _, source, q, k, old, n, qn, floor = begin_step(
        q_ptr + batch * stride_qb + head * stride_qh,
        k_ptr + batch * stride_kb + head * stride_kh,
        i_ptr + batch * stride_ib + head * stride_ih,
        f_ptr + batch * stride_fb + head * stride_fh,
        reset_ptr,
        C_ptr,
        n_ptr,
        m_ptr,
        bh,
        batch,
        K,
        V,
        scale,
        SIGMOID,
        LEAST_LOG_F,
        BOUND,
        BLOCK_K,
    )
    kd = tl.arange(0, BLOCK_K)
    in_k = kd < K
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
