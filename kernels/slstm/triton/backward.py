"""The backward loop over time: one launch, the gradients of the state in registers."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.launch import device_class, dot_precision, launch
from xlstm_rl.kernels.slstm.triton.blocks import (
    dot,
    layers,
    load_matrices,
    narrow,
    pack_four,
    unpack_four,
    unpack_two,
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
):
    """A tile of rows of one head, all steps from the last to the first.

    Step t reads slot t of cs, ns (before it); slot t + 1 it still has from the step after it.
    """
    head = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)  # [BB]
    cols = tl.arange(0, BD)
    in_rows, in_cols = rows < B, cols < D
    mask = in_rows[:, None] & in_cols[None, :]  # [BB, BD]
    HD = H.to(tl.int64) * D
    last = (T - 1).to(tl.int64)

    state_rows = rows * HD + head * D
    state_tile = state_rows[:, None] + cols[None, :]
    dx_rows = rows * T * 4 * HD
    dx_tile, dx_mask = layers(dx_rows, in_rows, HD, 4, cols, D)
    dx += head * D + last * 4 * HD
    BHD = B.to(tl.int64) * HD
    gates_tile, gates_mask = layers(state_rows * 4, in_rows, D, 4, cols, D)
    memory_tile, memory_mask = layers(state_rows * 2, in_rows, D, 2, cols, D)
    gates += last * 4 * BHD
    memory += last * 2 * BHD
    if dy is not None:
        dy += head * y_h + last * y_t
        dy_tile = (rows * y_b)[:, None] + cols[None, :]
        d_out = tl.load(dy + dy_tile, mask=mask, other=0.0)
    if reset is not None:
        reset += last * reset_t
        start = tl.load(reset + rows * reset_b, mask=in_rows, other=0)
    R_i, R_f, R_z, R_o = load_matrices(R + head * D * D, cols, HD * D, 1, D, D)  # transposed

    zeros = tl.zeros([BB, BD], tl.float32)
    dh, dc, dn, own = zeros, zeros, zeros, zeros
    # 1, not 0, where there is nothing: n divides
    s_memory = tl.load(memory + 2 * BHD + memory_tile, mask=memory_mask, other=1.0)
    c_1, n_1 = unpack_two(s_memory)
    if dh_T is not None:
        dh = tl.load(dh_T + state_tile, mask=mask, other=0.0).to(tl.float32)
    if dc_T is not None:
        dc = tl.load(dc_T + state_tile, mask=mask, other=0.0).to(tl.float32)
        own -= c_1 * dc
    if dn_T is not None:
        dn = tl.load(dn_T + state_tile, mask=mask, other=0.0).to(tl.float32)
        own -= n_1 * dn
    if dm_T is not None:
        own += tl.load(dm_T + state_tile, mask=mask, other=0.0).to(tl.float32)
    if HAS_OWN:
        # adds nothing, but hands it to the threads that hold the other gradients: else they would
        # exchange it at every step
        own = dot(narrow(zeros, R.dtype.element_ty), R_i, own, PRECISION)

    s_gates = tl.load(gates + gates_tile, mask=gates_mask, other=0.0)
    s_memory = tl.load(memory + memory_tile, mask=memory_mask, other=1.0)
    for back in range(T):
        next_rows = rows < tl.where(back + 1 < T, B, 0)
        next_mask = next_rows[:, None] & in_cols[None, :]
        lead, f, z, o = unpack_four(s_gates, BB, BD)
        c_0, n_0 = unpack_two(s_memory)
        gates -= 4 * BHD
        memory -= 2 * BHD
        next_3d = next_rows[:, None, None]
        s_gates = tl.load(gates + gates_tile, mask=gates_mask & next_3d, other=0.0)
        s_memory = tl.load(memory + memory_tile, mask=memory_mask & next_3d, other=1.0)
        if dy is not None:
            dh += d_out.to(tl.float32)
            dy -= y_t
            d_out = tl.load(dy + dy_tile, mask=next_mask, other=0.0)
        c, n = c_0, n_0
        if reset is not None:
            keep = (start == 0)[:, None]
            reset -= reset_t
            start = tl.load(reset + rows * reset_b, mask=next_rows, other=0)
            c, n = tl.where(keep, c, 0.0), tl.where(keep, n, 0.0)

        di, df, dz, do, dc, dn, own = retreat(
            lead, f, z, o, c, n, c_1, n_1, dh, dc, dn, own, HAS_OWN, SIGMOID, EXP_BOUND
        )
        packed = narrow(pack_four(di, df, dz, do, BB, BD), dx.dtype.element_ty)
        tl.store(dx + dx_tile, packed, mask=dx_mask)
        kind = R.dtype.element_ty
        dh = dot(narrow(di, kind), R_i, zeros, PRECISION)
        dh = dot(narrow(df, kind), R_f, dh, PRECISION)
        dh = dot(narrow(dz, kind), R_z, dh, PRECISION)
        dh = dot(narrow(do, kind), R_o, dh, PRECISION)
        dx -= 4 * HD
        if reset is not None:
            dh, dc = tl.where(keep, dh, 0.0), tl.where(keep, dc, 0.0)
            dn = tl.where(keep, dn, 0.0)  # own is 0 there already: m was i
        c_1, n_1 = c_0, n_0

    if dh_0 is not None:
        if reset is not None:
            keep = tl.load(reset + reset_t + rows * reset_b, mask=in_rows, other=0)[:, None] == 0
            c_1, n_1 = tl.where(keep, c_1, 0.0), tl.where(keep, n_1, 0.0)
        dm = c_1 * dc + n_1 * dn
        if HAS_OWN:
            dm += own
        tl.store(dh_0 + state_tile, dh, mask=mask)
        tl.store(dc_0 + state_tile, dc, mask=mask)
        tl.store(dn_0 + state_tile, dn, mask=mask)
        tl.store(dm_0 + state_tile, dm, mask=mask)


def backward(
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    dn: Tensor | None,
    dm: Tensor | None,
    R: Tensor,
    reset: Tensor | None,
    saved: Saved,
    forget_gate: str,
    has_state: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """The gradients of x ``[B, T, 4, H, D]`` and, if there was a state, of h, c, n, m.

    A ``None`` among the incoming gradients is zero.
    """
    R = R.contiguous()
    T, B, H, _, D = saved.gates.shape
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
        "PRECISION": dot_precision(dx.dtype, kind),
        "BB": tile.rows,
        "num_warps": tile.backward_warps,
        "num_stages": tile.stages,
    }
    grid = (triton.cdiv(B, tile.rows), H)
    if tile.columns == 0:
        launch(dx.device, slstm_bwd_kernel, grid, **arguments, BD=pad(D))
    else:
        arguments |= {"end": D, "BN": tile.columns, "BK": tile.depth}
        launch(dx.device, slstm_bwd_streamed_kernel, grid, **arguments)
    return (dx, dh_0, dc_0, dn_0, dm_0) if has_state else (dx, None, None, None, None)
