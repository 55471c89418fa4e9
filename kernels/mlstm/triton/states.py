"""The states between the chunks, forward, and their gradients, backward: the only loops over T."""

import triton
import triton.language as tl

from xlstm_rl.kernels.mlstm.triton.weights import (
    denominator,
    load_between,
    load_columns,
    load_rows,
    load_tile,
    weight,
)
from xlstm_rl.kernels.products import dot_mixed


@triton.jit
def mlstm_states_fwd_kernel(
    k_ptr,  # [B, T, H, K]
    v_ptr,  # [B, T, H, V]
    c_ptr,  # [B * H, T]
    u_ptr,  # [B * H, T + 1]
    episode_ptr,  # [B * H, T + 1]
    C_0_ptr,  # [B, H, K, V] or None
    n_0_ptr,  # [B, H, K] or None
    C_ptr,  # [N - 1, B * H, K, V]: before the chunks 1 .. N - 1
    n_ptr,  # [N - 1, B * H, K]
    C_T_ptr,  # [B, H, K, V]
    n_T_ptr,  # [B, H, K]
    T,
    H,
    K,
    V,
    L,  # steps of a chunk
    stride_kb,
    stride_kt,
    stride_kh,
    stride_vb,
    stride_vt,
    stride_vh,
    PRECISION: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Run a tile of one state through all chunks."""
    bh = tl.program_id(0).to(tl.int64)
    total = tl.num_programs(0)
    batch, head = bh // H, bh % H
    k_ptr += batch * stride_kb + head * stride_kh
    v_ptr += batch * stride_vb + head * stride_vh
    c_ptr += bh * T
    u_ptr += bh * (T + 1)
    episode_ptr += bh * (T + 1)
    kd = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    vd = tl.program_id(2) * BLOCK_V + tl.arange(0, BLOCK_V)
    at = kd[:, None] * V + vd[None, :]
    inside = (kd < K)[:, None] & (vd < V)[None, :]
    writes_n = kd < tl.where(tl.program_id(2) == 0, K, 0)

    C = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    n = tl.zeros([BLOCK_K], tl.float32)
    if C_0_ptr is not None:
        C += tl.load(C_0_ptr + bh * K * V + at, inside, other=0.0).to(tl.float32)
        n += tl.load(n_0_ptr + bh * K + kd, kd < K, other=0.0).to(tl.float32)
    u = tl.load(u_ptr)
    episode = tl.load(episode_ptr)
    for start in range(0, T, L):
        if start > 0:
            before = tl.cast(start // L - 1, tl.int64) * total + bh
            tl.store(C_ptr + before * K * V + at, C, inside)
            tl.store(n_ptr + before * K + kd, n, writes_n)
        end = tl.minimum(start + L, T)
        u_end = tl.load(u_ptr + end)
        episode_end = tl.load(episode_ptr + end)
        goes_on = episode == episode_end
        decay = weight(u, u_end)
        C = tl.where(goes_on, C * decay, 0.0)
        n = tl.where(goes_on, n * decay, 0.0)
        for first in range(start, end, TILE):
            t = first + tl.arange(0, TILE)
            valid = t < end
            c, episode_t = load_columns(c_ptr, episode_ptr, t, valid)
            # not loaded, not multiplied by 0: not even a NaN survives a reset
            reaches = valid & (episode_t == episode_end)
            a = tl.where(reaches, weight(c, u_end), 0.0)
            rows = tl.arange(0, TILE)
            k = load_tile(
                k_ptr + tl.cast(first, tl.int64) * stride_kt, stride_kt, rows, reaches, kd, K
            )
            v = load_tile(
                v_ptr + tl.cast(first, tl.int64) * stride_vt, stride_vt, rows, reaches, vd, V
            )
            written = k.to(tl.float32) * a[:, None]
            C = dot_mixed(tl.trans(written), v, PRECISION, C)
            n += tl.sum(written, 0)
        u = u_end
        episode = episode_end
    tl.store(C_T_ptr + bh * K * V + at, C, inside)
    tl.store(n_T_ptr + bh * K + kd, n, writes_n)


@triton.jit
def mlstm_states_bwd_kernel(
    q_ptr,  # [B, T, H, K]
    dh_ptr,  # [B, T, H, V]
    u_ptr,  # [B * H, T + 1]
    episode_ptr,  # [B * H, T + 1]
    floor_ptr,  # [B * H, T]
    qn_ptr,  # [B * H, T]
    ds_ptr,  # [B * H, T]
    C_0_ptr,  # [B, H, K, V] or None
    n_0_ptr,  # [B, H, K] or None
    C_ptr,  # [N - 1, B * H, K, V]
    n_ptr,  # [N - 1, B * H, K]
    C_T_ptr,  # [B, H, K, V]
    n_T_ptr,  # [B, H, K]
    dC_T_ptr,  # [B, H, K, V] or None
    dn_T_ptr,  # [B, H, K] or None
    dC_ptr,  # [N - 1, B * H, K, V]
    dn_ptr,  # [N - 1, B * H, K]
    dC_0_ptr,  # [B, H, K, V] or None
    dn_0_ptr,  # [B, H, K] or None
    inner_ptr,  # [tiles, B * H, N + 1]: of each state with its gradient
    T,
    H,
    K,
    V,
    L,
    N,
    scale,
    stride_qb,
    stride_qt,
    stride_qh,
    stride_db,
    stride_dt,
    stride_dh,
    PRECISION: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
):
    """Run a tile of one state's gradient back through all chunks."""
    bh = tl.program_id(0).to(tl.int64)
    total = tl.num_programs(0)
    batch, head = bh // H, bh % H
    q_ptr += batch * stride_qb + head * stride_qh
    dh_ptr += batch * stride_db + head * stride_dh
    u_ptr += bh * (T + 1)
    episode_ptr += bh * (T + 1)
    floor_ptr += bh * T
    qn_ptr += bh * T
    ds_ptr += bh * T
    part = tl.program_id(1) * tl.num_programs(2) + tl.program_id(2)
    inner_ptr += (part.to(tl.int64) * total + bh) * (N + 1)
    kd = tl.program_id(1) * BLOCK_K + tl.arange(0, BLOCK_K)
    vd = tl.program_id(2) * BLOCK_V + tl.arange(0, BLOCK_V)
    at = kd[:, None] * V + vd[None, :]
    inside = (kd < K)[:, None] & (vd < V)[None, :]
    has_n = kd < tl.where(tl.program_id(2) == 0, K, 0)

    dC = tl.zeros([BLOCK_K, BLOCK_V], tl.float32)
    dn = tl.zeros([BLOCK_K], tl.float32)
    product = tl.zeros([], tl.float32)
    if dC_T_ptr is not None:
        dC += tl.load(dC_T_ptr + bh * K * V + at, inside, other=0.0)
        dn += tl.load(dn_T_ptr + bh * K + kd, kd < K, other=0.0)
        C = tl.load(C_T_ptr + bh * K * V + at, inside, other=0.0)
        n = tl.load(n_T_ptr + bh * K + kd, has_n, other=0.0)
        product += tl.sum(tl.sum(C * dC, 1), 0) + tl.sum(n * dn, 0)
    tl.store(inner_ptr + N, product)
    for back in range(0, N):
        chunk = N - 1 - back
        start = chunk * L
        end = tl.minimum(start + L, T)
        u = tl.load(u_ptr + start)
        episode = tl.load(episode_ptr + start)
        u_end = tl.load(u_ptr + end)
        goes_on = episode == tl.load(episode_ptr + end)
        decay = weight(u, u_end)
        dC = tl.where(goes_on, dC * decay, 0.0)
        dn = tl.where(goes_on, dn * decay, 0.0)
        for first in range(start, end, TILE):
            t = first + tl.arange(0, TILE)
            valid = t < end
            u_t, episode_t = load_rows(u_ptr, episode_ptr, t, valid)
            sees = valid & (episode_t == episode)
            g = tl.where(sees, weight(u, u_t) * scale, 0.0)
            floor = tl.load(floor_ptr + t, sees, other=1.0)
            qn = tl.load(qn_ptr + t, sees, other=0.0)
            ds = tl.load(ds_ptr + t, sees, other=0.0)
            rows = tl.arange(0, TILE)
            q = load_tile(
                q_ptr + tl.cast(first, tl.int64) * stride_qt, stride_qt, rows, sees, kd, K
            )
            dh = load_tile(
                dh_ptr + tl.cast(first, tl.int64) * stride_dt, stride_dt, rows, sees, vd, V
            )
            # a fresh state's weight may be large where the gradients are small: their product first
            dn += tl.sum(q.to(tl.float32) * (g * ds)[:, None], 0)
            seen = q.to(tl.float32) * (g / denominator(qn, floor))[:, None]
            dC = dot_mixed(tl.trans(seen), dh, PRECISION, dC)
        # dC is now the gradient of the state before the chunk
        C = load_between(C_0_ptr, C_ptr, chunk, (bh, total), K * V, at, inside)
        n = load_between(n_0_ptr, n_ptr, chunk, (bh, total), K, kd, has_n)
        # where a reset hides the state there is no gradient, whatever lies there
        product = tl.sum(tl.sum(tl.where(dC == 0.0, 0.0, C * dC), 1), 0)
        product += tl.sum(tl.where(dn == 0.0, 0.0, n * dn), 0)
        tl.store(inner_ptr + chunk, product)
        if chunk > 0:
            before = tl.cast(chunk - 1, tl.int64) * total + bh
            tl.store(dC_ptr + before * K * V + at, dC, inside)
            tl.store(dn_ptr + before * K + kd, dn, has_n)
    if dC_0_ptr is not None:
        tl.store(dC_0_ptr + bh * K * V + at, dC, inside)
        tl.store(dn_0_ptr + bh * K + kd, dn, has_n)
