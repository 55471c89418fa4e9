"""What the chunkwise kernels share: where a tile lies, and the weights between steps."""

import triton
import triton.language as tl

from xlstm_rl.kernels.products import dot, narrow


@triton.jit
def pack(x):
    """A float64 as two float32 in one int64: its rounding, and what that left out.

    Differences of two such are as good as float64's, and only the scan of the gates computes in it.
    """
    high = x.to(tl.float32)
    low = tl.where(tl.abs(high) == float("inf"), 0.0, (x - high.to(tl.float64)).to(tl.float32))
    low_bits = low.to(tl.int32, bitcast=True).to(tl.int64) & 0xFFFFFFFF
    return (high.to(tl.int32, bitcast=True).to(tl.int64) << 32) | low_bits


@triton.jit
def unpack(x):
    """Both parts of what `pack` made one."""
    high = (x >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return high, (x & 0xFFFFFFFF).to(tl.int32).to(tl.float32, bitcast=True)


@triton.jit
def within(c, episode_j, j, u, episode_i, i):
    """Weights ``[I, J]`` of steps j in rows i, and which rows see which steps.

    A row sees the steps of its own episode up to its own; rows past the end see none. Where it
    does not see one, the weight is 0, but what it weighs may be NaN: mask the product.
    """
    c_high, c_low = unpack(c)
    u_high, u_low = unpack(u)
    log = (c_high[None, :] - u_high[:, None]) + (c_low[None, :] - u_low[:, None])
    seen = (episode_i[:, None] == episode_j[None, :]) & (i[:, None] >= j[None, :])
    # far above 0 only where not seen
    log = tl.minimum(log, 80.0, propagate_nan=tl.PropagateNan.ALL)
    return tl.where(seen, tl.exp(log), 0.0), seen


@triton.jit
def denominator(qn, floor):
    """What h is divided by; a NaN in either is one."""
    return tl.maximum(tl.abs(qn), floor, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def clean(x):
    """``x`` with zeros where it is not finite: for products whose other operand says so."""
    return tl.where(tl.abs(x.to(tl.float32)) < float("inf"), x, 0.0)


@triton.jit
def add_seen(acc, weights, seen, x, all_seen, PRECISION: tl.constexpr):
    """``acc + weights @ x`` for ``weights [R, S]``, whose rows hear only of what they see.

    A weight of 0 times what is not finite is NaN: what a row does not see would reach it. So
    where not all is seen, that goes another way: a second product tells the rows that do see it.
    """
    finite = tl.abs(x.to(tl.float32)) < float("inf")
    acc += dot(narrow(weights, x.dtype), tl.where(finite | all_seen, x, 0.0), PRECISION)
    if all_seen == 0:
        if tl.min(tl.min(finite.to(tl.int32), 1), 0) == 0:  # rare, and the product is not free
            heard = dot(seen.to(tl.float16), (finite == 0).to(tl.float16), "ieee")
            acc = tl.where(heard > 0.0, float("nan"), acc)
    return acc


@triton.jit
def locate(T, H, L, tiles, tiles_per_chunk, TILE: tl.constexpr):
    """Where this program's tile lies: batch and head, apart and as one, chunk, and steps.

    Those are: first and end of the chunk, and first of the tile.
    """
    pid = tl.program_id(0)
    bh = (pid // tiles).to(tl.int64)
    tile = pid % tiles
    chunk = tile // tiles_per_chunk
    start = chunk * L
    end = tl.minimum(start + L, T)
    return bh, bh // H, bh % H, chunk, start, end, start + (tile % tiles_per_chunk) * TILE


@triton.jit
def load_columns(c_ptr, episode_ptr, t, valid):
    """Load c and the episode of steps t; what is not valid belongs to no row's episode."""
    c = tl.load(c_ptr + t, valid, other=0)
    return c, tl.load(episode_ptr + 1 + t, valid, other=-2)


@triton.jit
def load_rows(u_ptr, episode_ptr, t, valid):
    """Load u and the episode of rows t; what is not valid sees no column."""
    u = tl.load(u_ptr + 1 + t, valid, other=0)
    return u, tl.load(episode_ptr + 1 + t, valid, other=-1)


@triton.jit
def weight(a, b):
    """``exp(a - b)`` of two that are packed, in float32; no inf, for inf * 0 is NaN.

    Above 0 are only those that are not used, and a fresh state's.
    """
    a_high, a_low = unpack(a)
    b_high, b_low = unpack(b)
    log = (a_high - b_high) + (a_low - b_low)
    return tl.exp(tl.minimum(log, 80.0, propagate_nan=tl.PropagateNan.ALL))


@triton.jit
def load_tile(ptr, stride, t, valid_t, d, D):
    """Load ``[t, d]`` of a tensor whose rows are `stride` apart; zeros outside."""
    offsets = t[:, None] * stride + d[None, :]  # 32 bits: `chunkwise.py` copies what is wider
    return tl.load(ptr + offsets, valid_t[:, None] & (d < D)[None, :], other=0.0)


@triton.jit
def store_tile(ptr, stride, t, valid_t, d, D, x):
    """Write ``x [t, d]``, cast to what lies there."""
    offsets = t[:, None] * stride + d[None, :]
    tl.store(ptr + offsets, narrow(x, ptr.dtype.element_ty), valid_t[:, None] & (d < D)[None, :])


@triton.jit
def load_between(first_ptr, later_ptr, chunk, per_state, size, offsets, mask):
    """Load a state (or a part of it) before a chunk: the first one, or one of those kept.

    ``first_ptr [B * H, size]`` may be None (zeros); ``later_ptr [N - 1, B * H, size]`` holds the
    states before the chunks 1 .. N - 1; `per_state` is (index of b and h, B * H).
    """
    bh, total = per_state
    if chunk > 0:
        base = later_ptr + (tl.cast(chunk - 1, tl.int64) * total + bh) * size
        x = tl.load(base + offsets, mask, other=0.0)
    else:
        if first_ptr is not None:
            x = tl.load(first_ptr + bh * size + offsets, mask, other=0.0).to(tl.float32)
        else:
            x = tl.zeros(offsets.shape, tl.float32)
    return x
