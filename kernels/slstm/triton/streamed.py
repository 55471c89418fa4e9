"""The loops over time where R does not fit on chip: it is read from the cache at every step.

A program walks over the columns of its rows, so that heads of any size fit; what the walk needs
again, the state or its gradients, lies in memory and stays in the cache. Threads read there what
others have written, hence the barriers; programs share nothing.
"""

import triton
import triton.language as tl

from xlstm_rl.kernels.slstm.triton.blocks import (
    add_mixed,
    add_unmixed,
    layers,
    load_biases,
    narrow,
    pack_four,
    pack_two,
    unpack_four,
    unpack_two,
)
from xlstm_rl.kernels.slstm.triton.cell import advance, retreat


@triton.jit
def load_or_zero(ptr, tile, mask):
    """A tile in float32, or zeros where there is no tensor."""
    if ptr is None:
        v = tl.zeros(mask.shape, tl.float32)
    else:
        v = tl.load(ptr + tile, mask=mask, other=0.0).to(tl.float32)
    return v


@triton.jit(do_not_specialize=["B", "T", "H", "end"])
def slstm_fwd_streamed_kernel(
    x,  # [B, T, 4, H, D], strides below
    R,  # [4, H, D, D]
    b,  # [4, H, D]
    reset,  # [B, T] or None
    h_0,  # [B, H, D] or None, as are c_0, n_0, m_0
    c_0,
    n_0,
    m_0,
    y,  # [B, T, H, D]
    hs,  # [2, B, H, D]: h before and after a step, taking turns
    c_T,  # [B, H, D], as are n_T, m_T: the state on its way
    n_T,
    m_T,
    gates,  # [T, B, H, 4, D] or None: i - (m' + log f), then f, z, o
    memory,  # [T + 1, B, H, 2, D] or None: c, n before the first step, and after each
    B,
    T,
    H,
    x_b,
    x_t,
    x_g,
    x_h,
    reset_b,
    reset_t,
    end,  # D, but not at compile time: unrolled loops would need too many registers
    D: tl.constexpr,
    SIGMOID: tl.constexpr,
    EXP_BOUND: tl.constexpr,
    PRECISION: tl.constexpr,
    BB: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """A tile of rows of one head, all steps, BN columns at a time."""
    head = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)  # [BB]
    in_rows = rows < B
    HD = H.to(tl.int64) * D
    BHD = B.to(tl.int64) * HD
    state_rows = rows * HD + head * D
    y += head * D
    x += head * x_h
    b += head * D
    R += head * D * D

    for part in range(0, end, BN):
        cols = part + tl.arange(0, BN)
        tile = state_rows[:, None] + cols[None, :]
        mask = in_rows[:, None] & (cols < D)[None, :]
        c, n = load_or_zero(c_0, tile, mask), load_or_zero(n_0, tile, mask)
        tl.store(hs + tile, load_or_zero(h_0, tile, mask), mask=mask)
        tl.store(c_T + tile, c, mask=mask)
        tl.store(n_T + tile, n, mask=mask)
        tl.store(m_T + tile, load_or_zero(m_0, tile, mask), mask=mask)
        if gates is not None:
            slots, in_slots = layers(state_rows * 2, in_rows, D, 2, cols, D)
            tl.store(memory + slots, pack_two(c, n), mask=in_slots)

    for t in range(T):
        # what the step before has written can be read, what it has read can be overwritten
        tl.debug_barrier()
        h_in, h_out = hs + (t % 2) * BHD, hs + (1 - t % 2) * BHD
        old_rows = in_rows
        if reset is not None:
            # a row that starts afresh is not read: not even a NaN of the last episode survives
            old_rows = in_rows & (tl.load(reset + rows * reset_b, mask=in_rows, other=1) == 0)
            reset += reset_t
        for part in range(0, end, BN):
            cols = part + tl.arange(0, BN)
            tile = state_rows[:, None] + cols[None, :]
            mask = in_rows[:, None] & (cols < D)[None, :]
            old = old_rows[:, None] & (cols < D)[None, :]
            i, f, z, o = load_biases(b, HD, cols, D)
            zeros = tl.zeros([BB, BN], tl.float32)
            i, f, z, o = zeros + i, zeros + f, zeros + z, zeros + o
            i, f, z, o = add_mixed(
                i, f, z, o, h_in, state_rows, old_rows, R, HD * D, cols, end, D, BK, PRECISION
            )
            x_tile, in_x = layers(rows * x_b, in_rows, x_g, 4, cols, D)
            x_i, x_f, x_z, x_o = unpack_four(tl.load(x + x_tile, mask=in_x, other=0.0), BB, BN)
            i, f, z, o = i + x_i, f + x_f, z + x_z, o + x_o
            c = tl.load(c_T + tile, mask=old, other=0.0)
            n = tl.load(n_T + tile, mask=old, other=0.0)
            m = tl.load(m_T + tile, mask=old, other=0.0)
            lead, h, c, n, m = advance(i, f, z, o, c, n, m, SIGMOID, EXP_BOUND)
            y_tile = (rows * T * HD)[:, None] + cols[None, :]
            tl.store(y + y_tile, narrow(h, y.dtype.element_ty), mask=mask)
            tl.store(h_out + tile, h, mask=mask)
            tl.store(c_T + tile, c, mask=mask)
            tl.store(n_T + tile, n, mask=mask)
            tl.store(m_T + tile, m, mask=mask)
            if gates is not None:
                slots, in_slots = layers(state_rows * 4, in_rows, D, 4, cols, D)
                packed = narrow(pack_four(lead, f, z, o, BB, BN), gates.dtype.element_ty)
                tl.store(gates + slots, packed, mask=in_slots)
                slots, in_slots = layers(state_rows * 2, in_rows, D, 2, cols, D)
                tl.store(memory + 2 * BHD + slots, pack_two(c, n), mask=in_slots)
        x += x_t
        y += HD
        if gates is not None:
            gates += 4 * BHD
            memory += 2 * BHD


@triton.jit(do_not_specialize=["B", "T", "H", "end"])
def slstm_bwd_streamed_kernel(
    dy,  # [B, T, H, D] or None, strides below
    dh_T,  # [B, H, D] or None, as are dc_T, dn_T, dm_T
    dc_T,
    dn_T,
    dm_T,
    R,  # [4, H, D, D]
    reset,  # [B, T] or None
    gates,  # as the forward saved them
    memory,
    dx,  # [B, T, 4, H, D]
    dh_0,  # [B, H, D], as are dc_0, dn_0, dm_0: the gradients on their way (of m: own)
    dc_0,
    dn_0,
    dm_0,
    B,
    T,
    H,
    y_b,
    y_t,
    y_h,
    reset_b,
    reset_t,
    end,  # D, but not at compile time: unrolled loops would need too many registers
    D: tl.constexpr,
    HAS_OWN: tl.constexpr,  # whether a loss touches the final c, n or m
    SIGMOID: tl.constexpr,
    EXP_BOUND: tl.constexpr,
    PRECISION: tl.constexpr,
    BB: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
):
    """A tile of rows of one head, all steps from the last to the first, BN columns at a time."""
    head = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)  # [BB]
    in_rows = rows < B
    HD = H.to(tl.int64) * D
    BHD = B.to(tl.int64) * HD
    last = (T - 1).to(tl.int64)
    state_rows = rows * HD + head * D
    dx_rows = rows * T * 4 * HD
    dx += head * D + last * 4 * HD
    gates += last * 4 * BHD
    memory += last * 2 * BHD
    R += head * D * D
    old_rows = in_rows
    if dy is not None:
        dy += head * y_h + last * y_t
    if reset is not None:
        reset += last * reset_t

    for part in range(0, end, BN):
        cols = part + tl.arange(0, BN)
        tile = state_rows[:, None] + cols[None, :]
        mask = in_rows[:, None] & (cols < D)[None, :]
        dc, dn = load_or_zero(dc_T, tile, mask), load_or_zero(dn_T, tile, mask)
        tl.store(dh_0 + tile, load_or_zero(dh_T, tile, mask), mask=mask)
        tl.store(dc_0 + tile, dc, mask=mask)
        tl.store(dn_0 + tile, dn, mask=mask)
        if HAS_OWN:
            slots, in_slots = layers(state_rows * 2, in_rows, D, 2, cols, D)
            c, n = unpack_two(tl.load(memory + 2 * BHD + slots, mask=in_slots, other=0.0))
            own = load_or_zero(dm_T, tile, mask) - c * dc - n * dn
            tl.store(dm_0 + tile, own, mask=mask)

    for _ in range(T):
        tl.debug_barrier()
        if reset is not None:
            old_rows = in_rows & (tl.load(reset + rows * reset_b, mask=in_rows, other=1) == 0)
            reset -= reset_t
        for part in range(0, end, BN):
            cols = part + tl.arange(0, BN)
            tile = state_rows[:, None] + cols[None, :]
            mask = in_rows[:, None] & (cols < D)[None, :]
            old = old_rows[:, None] & (cols < D)[None, :]
            slots, in_slots = layers(state_rows * 4, in_rows, D, 4, cols, D)
            packed = tl.load(gates + slots, mask=in_slots, other=0.0)
            lead, f, z, o = unpack_four(packed, BB, BN)
            slots, in_slots = layers(state_rows * 2, in_rows, D, 2, cols, D)
            # 1, not 0, where there is nothing: n divides
            after = tl.load(memory + 2 * BHD + slots, mask=in_slots, other=1.0)
            before = tl.load(memory + slots, mask=in_slots & old_rows[:, None, None], other=0.0)
            c_1, n_1 = unpack_two(after)
            c, n = unpack_two(before)
            dh = tl.load(dh_0 + tile, mask=mask, other=0.0)
            dc = tl.load(dc_0 + tile, mask=mask, other=0.0)
            dn = tl.load(dn_0 + tile, mask=mask, other=0.0)
            own = dh
            if HAS_OWN:
                own = tl.load(dm_0 + tile, mask=mask, other=0.0)
            if dy is not None:
                y_tile = (rows * y_b)[:, None] + cols[None, :]
                dh += tl.load(dy + y_tile, mask=mask, other=0.0).to(tl.float32)
            di, df, dz, do, dc, dn, own = retreat(
                lead, f, z, o, c, n, c_1, n_1, dh, dc, dn, own, HAS_OWN, SIGMOID, EXP_BOUND
            )
            slots, in_slots = layers(dx_rows, in_rows, HD, 4, cols, D)
            packed = narrow(pack_four(di, df, dz, do, BB, BN), dx.dtype.element_ty)
            tl.store(dx + slots, packed, mask=in_slots)
            tl.store(dc_0 + tile, tl.where(old, dc, 0.0), mask=mask)
            tl.store(dn_0 + tile, tl.where(old, dn, 0.0), mask=mask)
            if HAS_OWN:
                tl.store(dm_0 + tile, own, mask=mask)
        tl.debug_barrier()
        for part in range(0, end, BN):
            cols = part + tl.arange(0, BN)
            tile = state_rows[:, None] + cols[None, :]
            mask = in_rows[:, None] & (cols < D)[None, :]
            dh = tl.zeros([BB, BN], tl.float32)
            dh = add_unmixed(dh, dx, dx_rows, in_rows, HD, R, HD * D, cols, end, D, BK, PRECISION)
            tl.store(dh_0 + tile, tl.where(old_rows[:, None], dh, 0.0), mask=mask)
        dx -= 4 * HD
        gates -= 4 * BHD
        memory -= 2 * BHD
        if dy is not None:
            dy -= y_t

    tl.debug_barrier()
    for part in range(0, end, BN):
        cols = part + tl.arange(0, BN)
        tile = state_rows[:, None] + cols[None, :]
        mask = in_rows[:, None] & (cols < D)[None, :]
        slots, in_slots = layers(state_rows * 2, old_rows, D, 2, cols, D)
        c, n = unpack_two(tl.load(memory + 2 * BHD + slots, mask=in_slots, other=0.0))
        dm = c * tl.load(dc_0 + tile, mask=mask, other=0.0)
        dm += n * tl.load(dn_0 + tile, mask=mask, other=0.0)
        if HAS_OWN:
            dm += tl.load(dm_0 + tile, mask=mask, other=0.0)
        tl.store(dm_0 + tile, dm, mask=mask)
