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
from xlstm_rl.kernels.mlstm.triton.step_prologue import begin_step, step_inputs, step_sizes
from xlstm_rl.kernels.mlstm.triton.weights import denominator
from xlstm_rl.kernels.products import narrow
from xlstm_rl.kernels.types import MLSTMState


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
        **step_inputs(q, k, v, i, f, reset),
        C_ptr=C,
        n_ptr=n,
        m_ptr=m,
        C_new_ptr=after[0],
        n_new_ptr=after[1],
        m_new_ptr=after[2],
        h_ptr=h,
        **step_sizes(q, v, forget_gate),
    )
    if inplace and state is not None:
        note_overwritten(s for s, a in zip(state, after, strict=True) if s is a)
        for s, a in zip(state, after, strict=True):
            if s is not a:  # it had to be made contiguous
                s.copy_(a)
        return h, state
    return h, after


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
    _, fresh, forget, write, m, _, q, k, _, n, qn, floor = begin_step(
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
    k *= write
    den = denominator(qn, floor)
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
