"""The backward loop over time: one launch, the gradients of the state in registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.launch import device_class, dot_precision, launch
from xlstm_rl.kernels.products import dot, narrow
from xlstm_rl.kernels.slstm.triton.blocks import (
    flat,
    load,
    load_four,
    load_transposed,
    pack_four,
    pack_two,
    spread,
    store,
    store_four,
)
from xlstm_rl.kernels.slstm.triton.cell import retreat
from xlstm_rl.kernels.slstm.triton.forward import Saved, dense
from xlstm_rl.kernels.slstm.triton.streamed import slstm_bwd_streamed_kernel
from xlstm_rl.kernels.slstm.triton.tiles import pad, sequence_tile
from xlstm_rl.kernels.types import exp_bound


@triton.jit(do_not_specialize=["B", "T", "H"])
def slstm_bwd_kernel(
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
    dh_0,  # [B, H, D], as are dc_0, dn_0, dm_0
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
    D: tl.constexpr,
    HAS_OWN: tl.constexpr,  # whether a loss touches the final c, n or m
    SIGMOID: tl.constexpr,
    EXP_BOUND: tl.constexpr,
    PRECISION: tl.constexpr,
    BB: tl.constexpr,
    BD: tl.constexpr,
    AT_ONCE: tl.constexpr,  # of the four gates, how many for one product: 4 or 2
):
    """A tile of rows of one head, all steps from the last to the first.

    What a step reads is asked for one step ahead. Step t reads slot t of the memory (before it);
    slot t + 1 it still has from the step after it. The gradients of the four gates are exchanged
    at once, for one product with all of R.
    """
    head = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * BB
    rows = first + tl.arange(0, BB)  # [BB]
    in_rows = rows < B
    tile_rows, cols, slots = spread(BB, BD)
    tile_rows = first + tile_rows
    mask = (tile_rows < B) & (cols < D)
    HD = H.to(tl.int64) * D
    last = (T - 1).to(tl.int64)

    state_tile = tile_rows * HD + head * D + cols
    dx_tile = tile_rows * T * 4 * HD + cols
    dx += head * D + last * 4 * HD
    size: tl.constexpr = BB * BD
    programs = tl.num_programs(0).to(tl.int64) * H * size  # elements of one tensor, one step
    here = (head * tl.num_programs(0) + tl.program_id(0)) * size
    gates += 4 * (here + last * programs)
    memory += 2 * (here + last * programs)
    if dy is not None:
        dy += head * y_h + last * y_t
        dy_tile = tile_rows * y_b + cols
        d_out = load(dy, dy_tile, mask)
    if reset is not None:
        reset += last * reset_t
        start = tl.load(reset + rows * reset_b, mask=in_rows, other=0)
    ks = tl.arange(0, BD)
    R += head * D * D
    if AT_ONCE == 4:
        R_all = load_transposed(R, HD * D, ks, 4, D, BD)
    else:
        R_if = load_transposed(R, HD * D, ks, 2, D, BD)
        R_zo = load_transposed(R + 2 * HD * D, HD * D, ks, 2, D, BD)

    zeros = tl.zeros([BB, BD], tl.float32)
    dh, dc, dn, own = zeros, zeros, zeros, zeros
    c_1 = flat(load(memory + 2 * programs, slots, None), BB, BD)
    n_1 = flat(load(memory + 2 * programs + size, slots, None), BB, BD)
    if dh_T is not None:
        dh = flat(load(dh_T, state_tile, mask), BB, BD)
    if dc_T is not None:
        dc = flat(load(dc_T, state_tile, mask), BB, BD)
        own -= c_1 * dc
    if dn_T is not None:
        dn = flat(load(dn_T, state_tile, mask), BB, BD)
        own -= n_1 * dn
    if dm_T is not None:
        own += flat(load(dm_T, state_tile, mask), BB, BD)

    s_lead, s_f, s_z, s_o = load_four(gates, size, slots, None)
    s_c, s_n = load(memory, slots, None), load(memory + size, slots, None)
    for back in range(T):
        more = back + 1 < T  # the first step reads its own slots once more
        lead, f = flat(s_lead, BB, BD), flat(s_f, BB, BD)
        z, o = flat(s_z, BB, BD), flat(s_o, BB, BD)
        c_0, n_0 = flat(s_c, BB, BD), flat(s_n, BB, BD)
        gates -= tl.where(more, 4 * programs, 0)
        memory -= tl.where(more, 2 * programs, 0)
        s_lead, s_f, s_z, s_o = load_four(gates, size, slots, None)
        s_c, s_n = load(memory, slots, None), load(memory + size, slots, None)
        if dy is not None:
            dh += flat(d_out, BB, BD)
            dy -= tl.where(more, y_t, 0)
            d_out = load(dy, dy_tile, mask)
        c, n = c_0, n_0
        if reset is not None:
            keep = (start == 0)[:, None]
            reset -= tl.where(more, reset_t, 0)
            start = tl.load(reset + rows * reset_b, mask=in_rows, other=0)
            c, n = tl.where(keep, c, 0.0), tl.where(keep, n, 0.0)

        di, df, dz, do, dc, dn, own = retreat(
            lead, f, z, o, c, n, c_1, n_1, dh, dc, dn, own, HAS_OWN, SIGMOID, EXP_BOUND
        )
        store_four(dx, HD, dx_tile, di, df, dz, do, mask, BB, BD)
        dx -= 4 * HD
        kind = R.dtype.element_ty
        if AT_ONCE == 4:
            d = tl.reshape(pack_four(di, df, dz, do, BB, BD), [BB, 4 * BD])
            dh = dot(narrow(d, kind), R_all, PRECISION, zeros)
        else:
            d = tl.reshape(pack_two(di, df), [BB, 2 * BD])
            dh = dot(narrow(d, kind), R_if, PRECISION, zeros)
            d = tl.reshape(pack_two(dz, do), [BB, 2 * BD])
            dh = dot(narrow(d, kind), R_zo, PRECISION, dh)
        if reset is not None:
            dh, dc = tl.where(keep, dh, 0.0), tl.where(keep, dc, 0.0)
            dn = tl.where(keep, dn, 0.0)  # own is 0 there already: m was i
        c_1, n_1 = c_0, n_0

    if dh_0 is not None:
        if reset is not None:
            # at the first step: the last that was asked for
            keep = (start == 0)[:, None]
            c_1, n_1 = tl.where(keep, c_1, 0.0), tl.where(keep, n_1, 0.0)
        dm = c_1 * dc + n_1 * dn
        if HAS_OWN:
            dm += own
        store(dh_0, state_tile, dh, mask, BB, BD)
        store(dc_0, state_tile, dc, mask, BB, BD)
        store(dn_0, state_tile, dn, mask, BB, BD)
        store(dm_0, state_tile, dm, mask, BB, BD)


def backward(
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    dn: Tensor | None,
    dm: Tensor | None,
    R: Tensor,
    reset: Tensor | None,
    shape: torch.Size,
    saved: Saved,
    forget_gate: str,
    has_state: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x ``[B, T, 4, H, D]`` and, if there was a state, of h, c, n, m.

    A ``None`` among the incoming gradients is zero; ``shape`` is ``[B, T, H, D]``.
    """
    R = R.contiguous()
    B, T, H, D = shape
    dx = saved.gates.new_empty(B, T, 4, H, D)
    kind = device_class(dx.device)
    tile = sequence_tile(kind, D, R.dtype)
    state: list[Tensor | None] = [None] * 4
    if has_state or tile.columns:  # what is streamed keeps its state there
        state = [saved.memory.new_empty(B, H, D) for _ in range(4)]
    dh_0, dc_0, dn_0, dm_0 = state
    if B == 0:
        return dx, dh_0, dc_0, dn_0, dm_0
    dy = None if dy is None else dense(dy)
    dh, dc, dn, dm = (None if g is None else g.contiguous() for g in (dh, dc, dn, dm))
    arguments = {
        "dy": dy,
        "dh_T": dh,
        "dc_T": dc,
        "dn_T": dn,
        "dm_T": dm,
        "R": R,
        "reset": reset,
        "gates": saved.gates,
        "memory": saved.memory,
        "dx": dx,
        "dh_0": dh_0,
        "dc_0": dc_0,
        "dn_0": dn_0,
        "dm_0": dm_0,
        "B": B,
        "T": T,
        "H": H,
        "y_b": 0 if dy is None else dy.stride(0),
        "y_t": 0 if dy is None else dy.stride(1),
        "y_h": 0 if dy is None else dy.stride(2),
        "reset_b": 0 if reset is None else reset.stride(0),
        "reset_t": 0 if reset is None else reset.stride(1),
        "D": D,
        "HAS_OWN": dc is not None or dn is not None or dm is not None,
        "SIGMOID": forget_gate == "sigmoid",
        "EXP_BOUND": exp_bound(torch.float32),
        "PRECISION": dot_precision(R.dtype, kind),
        "BB": tile.rows,
        "num_warps": tile.backward_warps,
        "num_stages": tile.stages,
    }
    grid = (triton.cdiv(B, tile.rows), H)
    if tile.columns == 0:
        launch(dx.device, slstm_bwd_kernel, grid, **arguments, BD=pad(D), AT_ONCE=tile.at_once)
    else:
        arguments |= {"end": D, "BN": tile.columns, "BK": tile.depth}
        launch(dx.device, slstm_bwd_streamed_kernel, grid, **arguments)
    return (dx, dh_0, dc_0, dn_0, dm_0) if has_state else (dx, None, None, None, None)
