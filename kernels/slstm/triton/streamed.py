"""The loops over time where R does not fit on chip: it is read from the cache at every step.

A program walks over the columns of its rows, so that heads of any size fit; what the walk needs
again, the state or its gradients, lies in memory and stays in the cache. Threads read there what
others have written, hence the barriers; programs share nothing.
"""

import triton
import triton.language as tl

from xlstm_rl.kernels.products import narrow
from xlstm_rl.kernels.slstm.triton.blocks import (
    add_mixed,
    add_unmixed,
    flat,
    load,
    load_biases,
    load_four,
    spread,
    still,
    store,
    store_four,
)
from xlstm_rl.kernels.slstm.triton.cell import advance, retreat


@triton.jit
def load_or_zero(ptr, tile, mask):
    """A tile in float32, or zeros where there is no tensor."""
    zeros = tl.zeros(mask.shape, tl.float32)
    return zeros if ptr is None else load(ptr, tile, mask).to(tl.float32)


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
    rows = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)  # [BB], to multiply
    in_rows = rows < B
    tile_rows, tile_cols, _ = spread(BB, BN)
    tile_rows = tl.program_id(0).to(tl.int64) * BB + tile_rows
    HD = H.to(tl.int64) * D
    BHD = B.to(tl.int64) * HD
    state_rows = rows * HD + head * D
    tile_state = tile_rows * HD + head * D
    y += head * D
    x += head * x_h
    b += head * D
    R += head * D * D

    for part in range(0, end, BN):
        cols = part + tile_cols
        tile = tile_state + cols
        mask = (tile_rows < B) & (cols < D)
        c, n = load_or_zero(c_0, tile, mask), load_or_zero(n_0, tile, mask)
        tl.store(hs + tile, load_or_zero(h_0, tile, mask), mask=mask)
        tl.store(c_T + tile, c, mask=mask)
        tl.store(n_T + tile, n, mask=mask)
        tl.store(m_T + tile, load_or_zero(m_0, tile, mask), mask=mask)
        if gates is not None:
            slots = tile_state * 2 + cols
            tl.store(memory + slots, c, mask=mask)
            tl.store(memory + D + slots, n, mask=mask)

    for t in range(T):
        # what the step before has written can be read, what it has read can be overwritten
        tl.debug_barrier()
        h_in, h_out = hs + (t % 2) * BHD, hs + (1 - t % 2) * BHD
        old_rows, tile_old = in_rows, tile_rows < B
        if reset is not None:
            # a row that starts afresh is not read: not even a NaN of the last episode survives
            old_rows = still(reset, rows, B, reset_b)
            tile_old = still(reset, tile_rows, B, reset_b)
            reset += reset_t
        for part in range(0, end, BN):
            ns = part + tl.arange(0, BN)
            i, f, z, o = load_biases(b, HD, ns, D)
            zeros = tl.zeros([BB, BN], tl.float32)
            i, f, z, o = zeros + i, zeros + f, zeros + z, zeros + o
            i, f, z, o = add_mixed(
                i, f, z, o, h_in, state_rows, old_rows, R, HD * D, ns, end, D, BK, PRECISION
            )
            cols = part + tile_cols
            tile = tile_state + cols
            mask = (tile_rows < B) & (cols < D)
            old = tile_old & (cols < D)
            x_i, x_f, x_z, x_o = load_four(x, x_g, tile_rows * x_b + cols, mask)
            i, f = i + flat(x_i, BB, BN), f + flat(x_f, BB, BN)
            z, o = z + flat(x_z, BB, BN), o + flat(x_o, BB, BN)
            c = flat(load(c_T, tile, old), BB, BN)
            n = flat(load(n_T, tile, old), BB, BN)
            m = flat(load(m_T, tile, old), BB, BN)
            lead, h, c, n, m = advance(i, f, z, o, c, n, m, SIGMOID, EXP_BOUND)
            store(y, tile_rows * T * HD + cols, h, mask, BB, BN)
            store(h_out, tile, h, mask, BB, BN)
            store(c_T, tile, c, mask, BB, BN)
            store(n_T, tile, n, mask, BB, BN)
            store(m_T, tile, m, mask, BB, BN)
            if gates is not None:
                slots = tile_state * 4 + cols
                store_four(gates, D, slots, lead, f, z, o, mask, BB, BN)
                slots = tile_state * 2 + cols
                store(memory + 2 * BHD, slots, c, mask, BB, BN)
                store(memory + 2 * BHD + D, slots, n, mask, BB, BN)
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
    rows = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)  # [BB], to multiply
    in_rows = rows < B
    tile_rows, tile_cols, _ = spread(BB, BN)
    tile_rows = tl.program_id(0).to(tl.int64) * BB + tile_rows
    HD = H.to(tl.int64) * D
    BHD = B.to(tl.int64) * HD
    last = (T - 1).to(tl.int64)
    tile_state = tile_rows * HD + head * D
    dx_rows = rows * T * 4 * HD
    dx += head * D + last * 4 * HD
    gates += last * 4 * BHD
    memory += last * 2 * BHD
    R += head * D * D
    old_rows = tile_rows < B
    if dy is not None:
        dy += head * y_h + last * y_t
    if reset is not None:
        reset += last * reset_t

    for part in range(0, end, BN):
        cols = part + tile_cols
        tile = tile_state + cols
        mask = (tile_rows < B) & (cols < D)
        dc, dn = load_or_zero(dc_T, tile, mask), load_or_zero(dn_T, tile, mask)
        tl.store(dh_0 + tile, load_or_zero(dh_T, tile, mask), mask=mask)
        tl.store(dc_0 + tile, dc, mask=mask)
        tl.store(dn_0 + tile, dn, mask=mask)
        if HAS_OWN:
            slots = tile_state * 2 + cols
            c = load(memory + 2 * BHD, slots, mask)
            n = load(memory + 2 * BHD + D, slots, mask)
            own = load_or_zero(dm_T, tile, mask) - c * dc - n * dn
            tl.store(dm_0 + tile, own, mask=mask)

    for _ in range(T):
        tl.debug_barrier()
        if reset is not None:
            old_rows = still(reset, tile_rows, B, reset_b)
            reset -= reset_t
        for part in range(0, end, BN):
            cols = part + tile_cols
            tile = tile_state + cols
            mask = (tile_rows < B) & (cols < D)
            old = old_rows & (cols < D)
            lead, f, z, o = load_four(gates, D, tile_state * 4 + cols, mask)
            lead, f = lead.to(tl.float32), f.to(tl.float32)
            z, o = z.to(tl.float32), o.to(tl.float32)
            slots = tile_state * 2 + cols
            c_1 = load(memory + 2 * BHD, slots, mask)
            n_1 = tl.load(memory + 2 * BHD + D + slots, mask=mask, other=1.0)  # it divides
            c, n = load(memory, slots, old), load(memory + D, slots, old)
            dh, dc, dn = load(dh_0, tile, mask), load(dc_0, tile, mask), load(dn_0, tile, mask)
            own = dh
            if HAS_OWN:
                own = load(dm_0, tile, mask)
            if dy is not None:
                dh += load(dy, tile_rows * y_b + cols, mask).to(tl.float32)
            di, df, dz, do, dc, dn, own = retreat(
                lead, f, z, o, c, n, c_1, n_1, dh, dc, dn, own, HAS_OWN, SIGMOID, EXP_BOUND
            )
            d_tile = dx + tile_rows * T * 4 * HD + cols
            kind = dx.dtype.element_ty
            tl.store(d_tile, narrow(di, kind), mask=mask)
            tl.store(d_tile + HD, narrow(df, kind), mask=mask)
            tl.store(d_tile + 2 * HD, narrow(dz, kind), mask=mask)
            tl.store(d_tile + 3 * HD, narrow(do, kind), mask=mask)
            tl.store(dc_0 + tile, tl.where(old, dc, 0.0), mask=mask)
            tl.store(dn_0 + tile, tl.where(old, dn, 0.0), mask=mask)
            if HAS_OWN:
                tl.store(dm_0 + tile, own, mask=mask)
        tl.debug_barrier()
        for part in range(0, end, BN):
            ns = part + tl.arange(0, BN)
            dh = tl.zeros([BB, BN], tl.float32)
            dh = add_unmixed(dh, dx, dx_rows, in_rows, HD, R, HD * D, ns, end, D, BK, PRECISION)
            cols = part + tile_cols
            tile = tile_state + cols
            # a row that starts afresh hands nothing on
            store(dh_0, tile, dh, old_rows & (cols < D), BB, BN)
            zeros = tl.zeros(cols.shape, tl.float32) + tl.zeros(tile_rows.shape, tl.float32)
            tl.store(dh_0 + tile, zeros, mask=(tile_rows < B) & (old_rows == 0) & (cols < D))
        dx -= 4 * HD
        gates -= 4 * BHD
        memory -= 2 * BHD
        if dy is not None:
            dy -= y_t

    tl.debug_barrier()
    for part in range(0, end, BN):
        cols = part + tile_cols
        tile = tile_state + cols
        mask = (tile_rows < B) & (cols < D)
        old, slots = old_rows & (cols < D), tile_state * 2 + cols
        dm = load(memory + 2 * BHD, slots, old) * load(dc_0, tile, mask)
        dm += load(memory + 2 * BHD + D, slots, old) * load(dn_0, tile, mask)
        if HAS_OWN:
            dm += load(dm_0, tile, mask)
        tl.store(dm_0 + tile, dm, mask=mask)
