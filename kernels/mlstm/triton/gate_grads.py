"""The gradients of the gates: sums towards the end of each episode, chunk by chunk.

`dlf_t` is the sum of `q . dq - k . dk` from t to the end of its episode or chunk. If the chunk ends
first, the product of the state behind it with its gradient is added. Starting anew at
every chunk keeps the sums short: the terms cancel, their rounding errors do not.
"""

import triton
import triton.language as tl

from xlstm_rl.kernels.mlstm.triton.weights import locate
from xlstm_rl.kernels.products import narrow


@triton.jit(do_not_specialize=["total"])
def mlstm_gate_grads_kernel(
    f_ptr,  # [B, T, H]
    episode_ptr,  # [B * H, T + 1]
    source_ptr,  # [B * H]
    qdq_ptr,  # [B * H, T]
    kdk_ptr,  # [B * H, T]
    inner_ptr,  # [parts, B * H, N + 1]
    dm_ptr,  # [B, H] or None
    di_ptr,  # [B, T, H]
    df_ptr,  # [B, T, H]
    dm_0_ptr,  # [B, H] or None
    T,
    H,
    L,
    N,
    total,
    tiles,
    tiles_per_chunk,
    stride_fb,
    stride_ft,
    stride_fh,
    PARTS: tl.constexpr,
    TO_STATE: tl.constexpr,
    SIGMOID: tl.constexpr,
    TILE: tl.constexpr,
):
    """Sum up the gate gradients of one tile of steps."""
    bh, batch, head, chunk, _, end, first = locate(T, H, L, tiles, tiles_per_chunk, TILE)
    episode_ptr += bh * (T + 1)
    qdq_ptr += bh * T
    kdk_ptr += bh * T
    rows = tl.arange(0, TILE)

    t = first + rows
    valid = t < end
    step = t.to(tl.int64)
    episode_t = tl.load(episode_ptr + 1 + t, valid, other=-1)
    starts = tl.load(episode_ptr + t, valid, other=-1) != episode_t
    later = tl.zeros([TILE], tl.float32)
    for column in range(first, end, TILE):
        j = column + rows
        known = j < end
        flow = tl.load(qdq_ptr + j, known, other=0.0) - tl.load(kdk_ptr + j, known, other=0.0)
        episode_j = tl.load(episode_ptr + 1 + j, known, other=-2)
        after = (j[None, :] >= t[:, None]) & (episode_j[None, :] == episode_t[:, None])
        later += tl.sum(tl.where(after, flow[None, :], 0.0), 1)
    behind = tl.zeros([], tl.float32)
    final = tl.zeros([], tl.float32)
    before = tl.zeros([], tl.float32)
    for part in tl.static_range(PARTS):
        inner = inner_ptr + (part * total + bh) * (N + 1)
        behind += tl.load(inner + chunk + 1)
        final += tl.load(inner + N)
        before += tl.load(inner)
    later += tl.where(episode_t == tl.load(episode_ptr + end), behind, 0.0)
    later = tl.where(starts, 0.0, later)
    di = tl.load(kdk_ptr + t, valid, other=0.0)
    rest = tl.zeros([], tl.float32)
    source = tl.load(source_ptr + bh)
    episode_T = tl.load(episode_ptr + T)
    if TO_STATE:
        # C_T and n_T are exp(-m_T) times something without m: what is left for m itself goes to
        # the one gate, or the first m, that it equals, and to all that it was forgotten by
        rest -= final
        if dm_ptr is not None:
            rest += tl.load(dm_ptr + bh)
        di += tl.where(t == source, rest, 0.0)
        later += tl.where((t > source) & (episode_t == episode_T), rest, 0.0)
    if SIGMOID:
        f = tl.load(f_ptr + batch * stride_fb + head * stride_fh + step * stride_ft, valid)
        later *= tl.sigmoid(-tl.minimum(f.to(tl.float32), 88.0))
    out = (batch * T + step) * H + head
    tl.store(di_ptr + out, narrow(di, di_ptr.dtype.element_ty), valid)
    tl.store(df_ptr + out, narrow(later, df_ptr.dtype.element_ty), valid)
    if dm_0_ptr is not None:
        if first == 0:
            carried = (source == -1) & (episode_T == 0)
            tl.store(dm_0_ptr + bh, before + tl.where(carried, rest, 0.0))
