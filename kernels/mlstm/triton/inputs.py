"""The gradients of queries and keys: one tile of steps each, from the gradient of h.

With `dP = dh v^T / den` and the weights W, the gradient of a row's numerator alone is
`A = scale * (W dP k + g dh C^T / den)`. Because the numerator is linear in q, `q . A` is
`dh . h`: the row's `ds` comes for free, and `dq = A + ds * scale * (W k + g n)`.
"""

import triton
import triton.language as tl

from xlstm_rl.kernels.mlstm.triton.weights import (
    clean,
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
from xlstm_rl.kernels.products import dot, dot_mixed


@triton.jit(do_not_specialize=["total"])
def mlstm_dq_kernel(
    q_ptr,  # [B, T, H, K]
    k_ptr,  # [B, T, H, K]
    v_ptr,  # [B, T, H, V]
    dh_ptr,  # [B, T, H, V]
    c_ptr,  # [B * H, T]
    u_ptr,  # [B * H, T + 1]
    episode_ptr,  # [B * H, T + 1]
    floor_ptr,  # [B * H, T]
    qn_ptr,  # [B * H, T]
    C_0_ptr,  # [B, H, K, V] or None
    n_0_ptr,  # [B, H, K] or None
    C_ptr,  # [N - 1, B * H, K, V]
    n_ptr,  # [N - 1, B * H, K]
    dq_ptr,  # [B, T, H, K]
    ds_ptr,  # [B * H, T]
    qdq_ptr,  # [B * H, T]
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
    stride_vb,
    stride_vt,
    stride_vh,
    stride_db,
    stride_dt,
    stride_dh,
    PRECISION: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    V_BLOCKS: tl.constexpr,
):
    """Sum the gradient of one tile of queries, and what of it goes to ``q . n``."""
    bh, batch, head, chunk, start, end, first = locate(T, H, L, tiles, tiles_per_chunk, TILE)
    base = first.to(tl.int64)
    q_ptr += batch * stride_qb + base * stride_qt + head * stride_qh
    k_ptr += batch * stride_kb + head * stride_kh
    v_ptr += batch * stride_vb + head * stride_vh
    dh_ptr += batch * stride_db + base * stride_dt + head * stride_dh
    dq_ptr += ((batch * T + base) * H + head) * K
    c_ptr += bh * T
    u_ptr += bh * (T + 1)
    episode_ptr += bh * (T + 1)
    rows = tl.arange(0, TILE)
    kd = tl.arange(0, BLOCK_K)

    t = first + rows
    valid = t < end
    u_t, episode_t = load_rows(u_ptr, episode_ptr, t, valid)
    through = tl.zeros([TILE, BLOCK_K], tl.float32)  # the numerator
    under = tl.zeros([TILE, BLOCK_K], tl.float32)  # q . n
    if (C_0_ptr is not None) or (chunk > 0):
        carries = episode_t == tl.load(episode_ptr + start)
        g = tl.where(carries, weight(tl.load(u_ptr + start), u_t), 0.0)
        for block in range(V_BLOCKS):
            vd = block * BLOCK_V + tl.arange(0, BLOCK_V)
            at = kd[:, None] * V + vd[None, :]
            inside = (kd < K)[:, None] & (vd < V)[None, :]
            C = load_between(C_0_ptr, C_ptr, chunk, (bh, total), K * V, at, inside)
            dh = load_tile(dh_ptr, stride_dt, rows, valid, vd, V)
            through = dot_mixed(dh, tl.trans(C), PRECISION, through)
        n = load_between(n_0_ptr, n_ptr, chunk, (bh, total), K, kd, kd < K)
        through = tl.where(carries[:, None], through * g[:, None], 0.0)
        under += tl.where(carries[:, None], n[None, :] * g[:, None], 0.0)
    if V_BLOCKS == 1:  # once, not once a column
        dh = load_tile(dh_ptr, stride_dt, rows, valid, tl.arange(0, BLOCK_V), V)
    for column in range(start, first + 1, TILE):
        j = column + rows
        known = j < end
        c, episode_j = load_columns(c_ptr, episode_ptr, j, known)
        offset = tl.cast(column, tl.int64)
        dscores = tl.zeros([TILE, TILE], tl.float32)
        for piece in tl.static_range(V_BLOCKS):
            vd = piece * BLOCK_V + tl.arange(0, BLOCK_V)
            if V_BLOCKS > 1:
                dh = load_tile(dh_ptr, stride_dt, rows, valid, vd, V)
            v = load_tile(v_ptr + offset * stride_vt, stride_vt, rows, known, vd, V)
            dscores += dot(dh, tl.trans(v), PRECISION)
        # a row that sees a key which is not finite has a qn, and gradients, to match
        k = clean(load_tile(k_ptr + offset * stride_kt, stride_kt, rows, known, kd, K))
        w, seen = within(c, episode_j, j, u_t, episode_t, t)
        dscores = tl.where(seen, dscores * w, 0.0)
        # what the two have in common cancels below, and most of q . dq in the gates' gradients
        through = dot_mixed(dscores, k, PRECISION, through)
        under = dot_mixed(w, k, PRECISION, under)
    floor = tl.load(floor_ptr + bh * T + t, valid, other=1.0)
    qn = tl.load(qn_ptr + bh * T + t, valid, other=0.0)
    den = denominator(qn, floor)
    q = load_tile(q_ptr, stride_qt, rows, valid, kd, K)
    inner = tl.sum(q.to(tl.float32) * through, 1) * (scale / den)
    counts = tl.abs(qn) > floor
    ds = tl.where(counts, -inner / tl.where(counts, qn, 1.0), 0.0)
    # divided by inf all is 0, but h was inf / inf
    ds = tl.where(tl.abs(qn) == float("inf"), float("nan"), ds)
    dq = through * (scale / den)[:, None] + under * (ds * scale)[:, None]
    store_tile(dq_ptr, H * K, rows, valid, kd, K, dq)
    tl.store(ds_ptr + bh * T + t, ds, valid)
    # where q . n divides, the length of q changes nothing
    tl.store(qdq_ptr + bh * T + t, tl.where(counts, ds * 0.0, inner), valid)


@triton.jit(do_not_specialize=["total"])
def mlstm_dk_kernel(
    q_ptr,  # [B, T, H, K]
    k_ptr,  # [B, T, H, K]
    v_ptr,  # [B, T, H, V]
    dh_ptr,  # [B, T, H, V]
    c_ptr,  # [B * H, T]
    u_ptr,  # [B * H, T + 1]
    episode_ptr,  # [B * H, T + 1]
    floor_ptr,  # [B * H, T]
    qn_ptr,  # [B * H, T]
    ds_ptr,  # [B * H, T]
    dC_T_ptr,  # [B, H, K, V] or None
    dn_T_ptr,  # [B, H, K] or None
    dC_ptr,  # [N - 1, B * H, K, V]
    dn_ptr,  # [N - 1, B * H, K]
    dk_ptr,  # [B, T, H, K]
    kdk_ptr,  # [B * H, T]
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
    stride_vb,
    stride_vt,
    stride_vh,
    stride_db,
    stride_dt,
    stride_dh,
    PRECISION: tl.constexpr,
    TILE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_V: tl.constexpr,
    V_BLOCKS: tl.constexpr,
):
    """Sum the gradient of one tile of keys."""
    bh, batch, head, chunk, _, end, first = locate(T, H, L, tiles, tiles_per_chunk, TILE)
    base = first.to(tl.int64)
    q_ptr += batch * stride_qb + head * stride_qh
    k_ptr += batch * stride_kb + base * stride_kt + head * stride_kh
    v_ptr += batch * stride_vb + base * stride_vt + head * stride_vh
    dh_ptr += batch * stride_db + head * stride_dh
    dk_ptr += ((batch * T + base) * H + head) * K
    c_ptr += bh * T
    u_ptr += bh * (T + 1)
    episode_ptr += bh * (T + 1)
    floor_ptr += bh * T
    qn_ptr += bh * T
    ds_ptr += bh * T
    rows = tl.arange(0, TILE)
    kd = tl.arange(0, BLOCK_K)

    j = first + rows
    valid = j < end
    c, episode_j = load_columns(c_ptr, episode_ptr, j, valid)
    dk = tl.zeros([TILE, BLOCK_K], tl.float32)
    if (dC_T_ptr is not None) or (end < T):
        reaches = episode_j == tl.load(episode_ptr + end)
        a = weight(c, tl.load(u_ptr + end))
        last = tl.where(end < T, chunk + 1, 0)
        for block in range(V_BLOCKS):
            vd = block * BLOCK_V + tl.arange(0, BLOCK_V)
            at = kd[:, None] * V + vd[None, :]
            inside = (kd < K)[:, None] & (vd < V)[None, :]
            dC = load_between(dC_T_ptr, dC_ptr, last, (bh, total), K * V, at, inside)
            v = load_tile(v_ptr, stride_vt, rows, valid, vd, V)
            dk = dot_mixed(v, tl.trans(dC), PRECISION, dk)
        dn = load_between(dn_T_ptr, dn_ptr, last, (bh, total), K, kd, kd < K)
        dk = tl.where(reaches[:, None], a[:, None] * (dk + dn[None, :]), 0.0)
    if V_BLOCKS == 1:
        v = load_tile(v_ptr, stride_vt, rows, valid, tl.arange(0, BLOCK_V), V)
    for row in range(first, end, TILE):
        t = row + rows
        known = t < end
        u_t, episode_t = load_rows(u_ptr, episode_ptr, t, known)
        qn = tl.load(qn_ptr + t, known, other=0.0)
        den = denominator(qn, tl.load(floor_ptr + t, known, other=1.0))
        ds = tl.load(ds_ptr + t, known, other=0.0)
        offset = tl.cast(row, tl.int64)
        dscores = tl.zeros([TILE, TILE], tl.float32)
        for piece in tl.static_range(V_BLOCKS):
            vd = piece * BLOCK_V + tl.arange(0, BLOCK_V)
            dh = load_tile(dh_ptr + offset * stride_dt, stride_dt, rows, known, vd, V)
            if V_BLOCKS > 1:
                v = load_tile(v_ptr, stride_vt, rows, valid, vd, V)
            dscores += dot(dh, tl.trans(v), PRECISION)
        q = load_tile(q_ptr + offset * stride_qt, stride_qt, rows, known, kd, K)
        # the weight first: where it is 0, what it weighs may be infinite
        w, seen = within(c, episode_j, j, u_t, episode_t, t)
        w *= scale
        dscores = dscores * (w / den[:, None]) + w * ds[:, None]
        dscores = tl.where(seen, dscores, 0.0)
        # a query that is not finite has made its row's ds or den, and so dscores, NaN
        dk = dot_mixed(tl.trans(dscores), clean(q), PRECISION, dk)
    store_tile(dk_ptr, H * K, rows, valid, kd, K, dk)
    k = load_tile(k_ptr, stride_kt, rows, valid, kd, K)
    inner = tl.sum(k.to(tl.float32) * dk, 1)
    tl.store(kdk_ptr + bh * T + j, inner, valid)
