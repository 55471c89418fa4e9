"""The forward loop over time: one launch, the state in registers, R on chip where it fits."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.launch import device_class, dot_precision, launch
from xlstm_rl.kernels.slstm.triton.blocks import (
    dot,
    layers,
    load_biases,
    load_matrices,
    narrow,
    pack_four,
    pack_two,
    unpack_four,
)
from xlstm_rl.kernels.slstm.triton.cell import advance
from xlstm_rl.kernels.slstm.triton.streamed import slstm_fwd_streamed_kernel
from xlstm_rl.kernels.slstm.triton.tiles import pad, sequence_tile
from xlstm_rl.kernels.types import SLSTMState, exp_bound


@triton.jit(do_not_specialize=["B", "T", "H"])
def slstm_fwd_kernel(
    x,  # [B, T, 4, H, D], strides below
    R,  # [4, H, D, D]
    b,  # [4, H, D]
    reset,  # [B, T] or None
    h_0,  # [B, H, D] or None, as are c_0, n_0, m_0
    c_0,
    n_0,
    m_0,
    y,  # [B, T, H, D]
    h_T,  # [B, H, D], as are c_T, n_T, m_T
    c_T,
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
    D: tl.constexpr,
    SIGMOID: tl.constexpr,
    EXP_BOUND: tl.constexpr,
    PRECISION: tl.constexpr,
    BB: tl.constexpr,
    BD: tl.constexpr,
):
    """A tile of rows of one head, all steps, R in shared memory.

    A step's loads are asked for one step ahead.
    """
    head = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0).to(tl.int64) * BB + tl.arange(0, BB)  # [BB]
    cols = tl.arange(0, BD)
    in_rows, in_cols = rows < B, cols < D
    mask = in_rows[:, None] & in_cols[None, :]  # [BB, BD]
    HD = H.to(tl.int64) * D

    state_rows = rows * HD + head * D
    state_tile = state_rows[:, None] + cols[None, :]
    x += head * x_h
    x_tile, x_mask = layers(rows * x_b, in_rows, x_g, 4, cols, D)
    y += head * D
    y_tile = (rows * T * HD)[:, None] + cols[None, :]

    b_i, b_f, b_z, b_o = load_biases(b + head * D, HD, cols, D)
    zeros = tl.zeros([BB, BD], tl.float32)
    R_i, R_f, R_z, R_o = load_matrices(R + head * D * D, cols, HD * D, D, 1, D)

    if h_0 is not None:
        h = tl.load(h_0 + state_tile, mask=mask, other=0.0).to(tl.float32)
        c = tl.load(c_0 + state_tile, mask=mask, other=0.0).to(tl.float32)
        n = tl.load(n_0 + state_tile, mask=mask, other=0.0).to(tl.float32)
        m = tl.load(m_0 + state_tile, mask=mask, other=0.0).to(tl.float32)
    else:
        h, c, n, m = zeros, zeros, zeros, zeros
    if gates is not None:
        BHD = B.to(tl.int64) * HD
        gates_tile, gates_mask = layers(state_rows * 4, in_rows, D, 4, cols, D)
        memory_tile, memory_mask = layers(state_rows * 2, in_rows, D, 2, cols, D)
        tl.store(memory + memory_tile, pack_two(c, n), mask=memory_mask)

    x_next = tl.load(x + x_tile, mask=x_mask, other=0.0)
    if reset is not None:
        start = tl.load(reset + rows * reset_b, mask=in_rows, other=0)
    for t in range(T):
        next_rows = rows < tl.where(t + 1 < T, B, 0)
        i, f, z, o = unpack_four(x_next, BB, BD)
        x += x_t
        x_next = tl.load(x + x_tile, mask=x_mask & next_rows[:, None, None], other=0.0)
        if reset is not None:
            keep = (start == 0)[:, None]
            reset += reset_t
            start = tl.load(reset + rows * reset_b, mask=next_rows, other=0)
            # not multiplied by zero: not even a NaN of the last episode survives
            h, c = tl.where(keep, h, 0.0), tl.where(keep, c, 0.0)
            n, m = tl.where(keep, n, 0.0), tl.where(keep, m, 0.0)

        a = narrow(h, R.dtype.element_ty)
        i += dot(a, R_i, zeros + b_i, PRECISION)
        f += dot(a, R_f, zeros + b_f, PRECISION)
        z += dot(a, R_z, zeros + b_z, PRECISION)
        o += dot(a, R_o, zeros + b_o, PRECISION)
        lead, h, c, n, m = advance(i, f, z, o, c, n, m, SIGMOID, EXP_BOUND)
        tl.store(y + y_tile, narrow(h, y.dtype.element_ty), mask=mask)
        y += HD
        if gates is not None:
            packed = narrow(pack_four(lead, f, z, o, BB, BD), gates.dtype.element_ty)
            tl.store(gates + gates_tile, packed, mask=gates_mask)
            gates += 4 * BHD
            memory += 2 * BHD
            tl.store(memory + memory_tile, pack_two(c, n), mask=memory_mask)

    tl.store(h_T + state_tile, h, mask=mask)
    tl.store(c_T + state_tile, c, mask=mask)
    tl.store(n_T + state_tile, n, mask=mask)
    tl.store(m_T + state_tile, m, mask=mask)


class Saved(NamedTuple):
    """What the backward reads again, beside y, R and the first h."""

    gates: Tensor
    """``[T, B, H, 4, D]`` in the dtype of x: i - (m' + log f), and the raw f, z, o."""
    memory: Tensor
    """``[T + 1, B, H, 2, D]``: c and n before the first step, and after each."""


def empty_saved(x: Tensor) -> Saved:
    """Room for what a forward over x ``[B, T, 4, H, D]`` saves."""
    B, T, _, H, D = x.shape
    memory = torch.empty(T + 1, B, H, 2, D, dtype=torch.float32, device=x.device)
    return Saved(x.new_empty(T, B, H, 4, D), memory)


def dense(x: Tensor) -> Tensor:
    """``x`` itself if its last axis is dense, else a copy; the other strides may be any."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def forward(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: SLSTMState | None,
    forget_gate: str,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Saved | None]:
    """``h [B, T, H, D]``, the final h, c, n, m, and what the backward needs, if it is wanted."""
    x, R, b = dense(x), R.contiguous(), b.contiguous()
    B, T, _, H, D = x.shape
    first = (None,) * 4 if state is None else tuple(s.contiguous() for s in state)
    y = x.new_empty(B, T, H, D)
    kind = device_class(x.device)
    tile = sequence_tile(kind, D, R.dtype)
    h, c, n, m = (torch.empty(B, H, D, dtype=torch.float32, device=x.device) for _ in range(4))
    saved = empty_saved(x) if save else None
    if B == 0:
        return y, h, c, n, m, saved
    arguments = {
        "x": x,
        "R": R,
        "b": b,
        "reset": reset,
        "h_0": first[0],
        "c_0": first[1],
        "n_0": first[2],
        "m_0": first[3],
        "y": y,
        "c_T": c,
        "n_T": n,
        "m_T": m,
        "gates": None if saved is None else saved.gates,
        "memory": None if saved is None else saved.memory,
        "B": B,
        "T": T,
        "H": H,
        "x_b": x.stride(0),
        "x_t": x.stride(1),
        "x_g": x.stride(2),
        "x_h": x.stride(3),
        "reset_b": 0 if reset is None else reset.stride(0),
        "reset_t": 0 if reset is None else reset.stride(1),
        "D": D,
        "SIGMOID": forget_gate == "sigmoid",
        "EXP_BOUND": exp_bound(torch.float32),
        "PRECISION": dot_precision(x.dtype, kind),
        "BB": tile.rows,
        "num_warps": tile.forward_warps,
        "num_stages": tile.stages,
    }
    grid = (triton.cdiv(B, tile.rows), H)
    if tile.columns == 0:
        launch(x.device, slstm_fwd_kernel, grid, **arguments, h_T=h, BD=pad(D))
        return y, h, c, n, m, saved
    hs = h.new_empty(2, B, H, D)
    arguments |= {"hs": hs, "end": D, "BN": tile.columns, "BK": tile.depth}
    launch(x.device, slstm_fwd_streamed_kernel, grid, **arguments)
    return y, hs[T % 2], c, n, m, saved
