"""What is read out of the memory, and the gradient of the values: one tile of steps each.

Both are sums over the steps of a chunk, weighted by `W * q k^T`, and a product with the state
before or the gradient of the state behind it.
"""

import triton
import triton.language as tl

from xlstm_rl.kernels.mlstm.triton.weights import (
    add_seen,
    denominator,
    load_between,
    load_columns,
    load_rows,
    load_tile,
    locate,
    store_tile,
    weight,
    within,
)
from xlstm_rl.kernels.products import dot, narrow


@triton.jit(do_not_specialize=["total"])
def mlstm_output_fwd_kernel(
    q_ptr,  # [B, T, H, K]
    k_ptr,  # [B, T, H, K]
    v_ptr,  # [B, T, H, V]
    c_ptr,  # [B * H, T]
    u_ptr,  # [B * H, T + 1]
    episode_ptr,  # [B * H, T + 1]
    floor_ptr,  # [B * H, T]
    C_0_ptr,  # [B, H, K, V] or None
    n_0_ptr,  # [B, H, K] or None
    C_ptr,  # [N - 1, B * H, K, V]
    n_ptr,  # [N - 1, B * H, K]
    h_ptr,  # [B, T, H, V]
    qn_ptr,  # [B * H, T]
    T,
    H,
    K,
    V,
    L,
    total,  # B * H
    tiles,  # of a sequence
    tiles_per_chunk,
    scale,
    stride_qb,
    stride_qt,
    stride_qh,
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
    K_BLOCKS: tl.constexpr,
):
    """Read h and ``q . n`` in one tile of rows."""
    bh, batch, head, chunk, start, end, first = locate(T, H, L, tiles, tiles_per_chunk, TILE)
    base = first.to(tl.int64)
    q_ptr += batch * stride_qb + base * stride_qt + head * stride_qh
    k_ptr += batch * stride_kb + head * stride_kh
    v_ptr += batch * stride_vb + head * stride_vh
    h_ptr += ((batch * T + base) * H + head) * V
    c_ptr += bh * T
    u_ptr += bh * (T + 1)
    episode_ptr += bh * (T + 1)
    qn_ptr += bh * T
    rows = tl.arange(0, TILE)
    vd = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)

    t = first + rows
    valid = t < end
    u_t, episode_t = load_rows(u_ptr, episode_ptr, t, valid)
    sums = tl.zeros([TILE, BLOCK_V], tl.float32)
    qn = tl.zeros([TILE], tl.float32)
    episode_last = tl.load(episode_ptr + tl.minimum(first + TILE, end))
    if (C_0_ptr is not None) or (chunk > 0):
        carries = episode_t == tl.load(episode_ptr + start)
        g = tl.where(carries, weight(tl.load(u_ptr + start), u_t), 0.0)
        for block in range(K_BLOCKS):
            kd = block * BLOCK_K + tl.arange(0, BLOCK_K)
            q = load_tile(q_ptr, stride_qt, rows, valid, kd, K)
            at = kd[:, None] * V + vd[None, :]
            inside = (kd < K)[:, None] & (vd < V)[None, :]
            C = load_between(C_0_ptr, C_ptr, chunk, (bh, total), K * V, at, inside)
            n = load_between(n_0_ptr, n_ptr, chunk, (bh, total), K, kd, kd < K)
            # scaled first: float16 ends at 65504
            sums += dot(q, narrow(C * scale, q.dtype), PRECISION)
            qn += tl.sum(q.to(tl.float32) * n[None, :], 1) * scale
        # masked, not multiplied by 0: not even a NaN survives a reset
        sums = tl.where(carries[:, None], sums * g[:, None], 0.0)
        qn = tl.where(carries, qn * g, 0.0)
    if K_BLOCKS == 1:  # once, not once a column
        q = load_tile(q_ptr, stride_qt, rows, valid, tl.arange(0, BLOCK_K), K)
    for column in range(start, first + 1, TILE):
        j = column + rows
        known = j < end
        c, episode_j = load_columns(c_ptr, episode_ptr, j, known)
        offset = tl.cast(column, tl.int64)
        scores = tl.zeros([TILE, TILE], tl.float32)
        for piece in tl.static_range(K_BLOCKS):
            kd = piece * BLOCK_K + tl.arange(0, BLOCK_K)
            if K_BLOCKS > 1:
                q = load_tile(q_ptr, stride_qt, rows, valid, kd, K)
            k = load_tile(k_ptr + offset * stride_kt, stride_kt, rows, known, kd, K)
            scores += dot(q, tl.trans(k), PRECISION)
        v = load_tile(v_ptr + offset * stride_vt, stride_vt, rows, known, vd, V)
        w, seen = within(c, episode_j, j, u_t, episode_t, t)
        scores = tl.where(seen, scores * (w * scale), 0.0)
        qn += tl.sum(scores, 1)
        episode_column = tl.load(episode_ptr + tl.minimum(1 + column, T))
        all_seen = (column < first) & (episode_column == episode_last)
        sums = add_seen(sums, scores, seen, v, all_seen, PRECISION)
    den = denominator(qn, tl.load(floor_ptr + bh * T + t, valid, other=1.0))
    store_tile(h_ptr, H * V, rows, valid, vd, V, sums / den[:, None])
    if tl.program_id(1) == 0:
        tl.store(qn_ptr + t, qn, valid)


@triton.jit(do_not_specialize=["total"])
def mlstm_dv_kernel(
    q_ptr,  # [B, T, H, K]
    k_ptr,  # [B, T, H, K]
    dh_ptr,  # [B, T, H, V]
    c_ptr,  # [B * H, T]
    u_ptr,  # [B * H, T + 1]
    episode_ptr,  # [B * H, T + 1]
    floor_ptr,  # [B * H, T]
    qn_ptr,  # [B * H, T]
    dC_T_ptr,  # [B, H, K, V] or None
    dC_ptr,  # [N - 1, B * H, K, V]: of the states behind the chunks 0 .. N - 2
    dv_ptr,  # [B, T, H, V]
    T,
    H,
    K,
    V,
    L,
    total,
    tiles,
    tiles_per_chunk,
    scale,
    stride_qb,
    stride_qt,
    stride_qh,
    stride_kb,
    stride_kt,
    stride_kh,
    stride_db,
    stride_dt,
    stride_dh,
    PRECISION: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    K_BLOCKS: tl.constexpr,
):
    """Sum the gradient of one tile of values."""
    bh, batch, head, chunk, _, end, first = locate(T, H, L, tiles, tiles_per_chunk, TILE)
    base = first.to(tl.int64)
    q_ptr += batch * stride_qb + head * stride_qh
    k_ptr += batch * stride_kb + base * stride_kt + head * stride_kh
    dh_ptr += batch * stride_db + head * stride_dh
    dv_ptr += ((batch * T + base) * H + head) * V
    c_ptr += bh * T
    u_ptr += bh * (T + 1)
    episode_ptr += bh * (T + 1)
    floor_ptr += bh * T
    qn_ptr += bh * T
    rows = tl.arange(0, TILE)
    vd = tl.program_id(1) * BLOCK_V + tl.arange(0, BLOCK_V)

    j = first + rows
    valid = j < end
    c, episode_j = load_columns(c_ptr, episode_ptr, j, valid)
    dv = tl.zeros([TILE, BLOCK_V], tl.float32)
    if (dC_T_ptr is not None) or (end < T):
        reaches = episode_j == tl.load(episode_ptr + end)
        a = weight(c, tl.load(u_ptr + end))
        # behind the chunk: the state before the next one, or the final one
        last = tl.where(end < T, chunk + 1, 0)
        for block in range(K_BLOCKS):
            kd = block * BLOCK_K + tl.arange(0, BLOCK_K)
            k = load_tile(k_ptr, stride_kt, rows, valid, kd, K)
            at = kd[:, None] * V + vd[None, :]
            inside = (kd < K)[:, None] & (vd < V)[None, :]
            dC = load_between(dC_T_ptr, dC_ptr, last, (bh, total), K * V, at, inside)
            dv += dot(k, narrow(dC, k.dtype), PRECISION)
        dv = tl.where(reaches[:, None], a[:, None] * dv, 0.0)
    episode_first = tl.load(episode_ptr + tl.minimum(1 + first, T))
    if K_BLOCKS == 1:
        k = load_tile(k_ptr, stride_kt, rows, valid, tl.arange(0, BLOCK_K), K)
    for row in range(first, end, TILE):
        t = row + rows
        known = t < end
        u_t, episode_t = load_rows(u_ptr, episode_ptr, t, known)
        qn = tl.load(qn_ptr + t, known, other=0.0)
        den = denominator(qn, tl.load(floor_ptr + t, known, other=1.0))
        offset = tl.cast(row, tl.int64)
        scores = tl.zeros([TILE, TILE], tl.float32)
        for piece in tl.static_range(K_BLOCKS):
            kd = piece * BLOCK_K + tl.arange(0, BLOCK_K)
            if K_BLOCKS > 1:
                k = load_tile(k_ptr, stride_kt, rows, valid, kd, K)
            q = load_tile(q_ptr + offset * stride_qt, stride_qt, rows, known, kd, K)
            scores += dot(q, tl.trans(k), PRECISION)
        dh = load_tile(dh_ptr + offset * stride_dt, stride_dt, rows, known, vd, V)
        w, seen = within(c, episode_j, j, u_t, episode_t, t)
        scores = tl.where(seen, scores * (w * (scale / den)[:, None]), 0.0)
        behind = tl.load(episode_ptr + tl.minimum(row + TILE, end)) == episode_first
        all_seen = (row > first) & behind
        dv = add_seen(dv, tl.trans(scores), tl.trans(seen), dh, all_seen, PRECISION)
    store_tile(dv_ptr, H * V, rows, valid, vd, V, dv)
