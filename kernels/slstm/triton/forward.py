"""The forward loop over time: one launch, the state in registers, R on chip where it fits."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.launch import device_class, dot_precision, launch
from xlstm_rl.kernels.products import dot, narrow
from xlstm_rl.kernels.slstm.triton.blocks import (
    flat,
    load,
    load_biases,
    load_four,
    load_matrix,
    spread,
    store,
    store_four,
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
    gates,  # [T, H, tiles, 4, BB BD] or None: i - (m' + log f), then f, z, o
    memory,  # [T + 1, H, tiles, 2, BB BD] or None: c, n before the first step, and after each
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

    A step's x is asked for one step ahead. All that the threads exchange at a step is h.
    """
    head = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * BB
    rows = first + tl.arange(0, BB)  # [BB]
    in_rows = rows < B
    tile_rows, cols, slots = spread(BB, BD)
    tile_rows = first + tile_rows
    mask = (tile_rows < B) & (cols < D)
    HD = H.to(tl.int64) * D

    state_tile = tile_rows * HD + head * D + cols
    x += head * x_h
    x_tile = tile_rows * x_b + cols
    y += head * D
    y_tile = tile_rows * T * HD + cols

    ks = tl.arange(0, BD)
    b_i, b_f, b_z, b_o = load_biases(b + head * D, HD, ks, D)
    zeros = tl.zeros([BB, BD], tl.float32)
    R += head * D * D
    R_i = load_matrix(R, ks, ks, D)
    R_f = load_matrix(R + HD * D, ks, ks, D)
    R_z = load_matrix(R + 2 * HD * D, ks, ks, D)
    R_o = load_matrix(R + 3 * HD * D, ks, ks, D)

    h, c, n, m = zeros, zeros, zeros, zeros
    if h_0 is not None:
        h = flat(load(h_0, state_tile, mask), BB, BD)
        c = flat(load(c_0, state_tile, mask), BB, BD)
        n = flat(load(n_0, state_tile, mask), BB, BD)
        m = flat(load(m_0, state_tile, mask), BB, BD)
    if gates is not None:
        size: tl.constexpr = BB * BD
        programs = tl.num_programs(0).to(tl.int64) * H * size  # elements of one tensor, one step
        here = (head * tl.num_programs(0) + tl.program_id(0)) * size
        gates += 4 * here
        memory += 2 * here
        store(memory, slots, c, None, BB, BD)
        store(memory + size, slots, n, None, BB, BD)

    x_i, x_f, x_z, x_o = load_four(x, x_g, x_tile, mask)
    if reset is not None:
        start = tl.load(reset + rows * reset_b, mask=in_rows, other=0)
    for t in range(T):
        i, f, z, o = flat(x_i, BB, BD), flat(x_f, BB, BD), flat(x_z, BB, BD), flat(x_o, BB, BD)
        more = t + 1 < T  # the last step reads its own x once more
        x += tl.where(more, x_t, 0)
        x_i, x_f, x_z, x_o = load_four(x, x_g, x_tile, mask)
        if reset is not None:
            keep = (start == 0)[:, None]
            reset += tl.where(more, reset_t, 0)
            start = tl.load(reset + rows * reset_b, mask=in_rows, other=0)
            # not multiplied by zero: not even a NaN of the last episode survives
            h, c = tl.where(keep, h, 0.0), tl.where(keep, c, 0.0)
            n, m = tl.where(keep, n, 0.0), tl.where(keep, m, 0.0)

        a = narrow(h, R.dtype.element_ty)
        i += dot(a, R_i, PRECISION, zeros + b_i)
        f += dot(a, R_f, PRECISION, zeros + b_f)
        z += dot(a, R_z, PRECISION, zeros + b_z)
        o += dot(a, R_o, PRECISION, zeros + b_o)
        lead, h, c, n, m = advance(i, f, z, o, c, n, m, SIGMOID, EXP_BOUND)
        store(y, y_tile, h, mask, BB, BD)
        y += HD
        if gates is not None:
            store_four(gates, size, slots, lead, f, z, o, None, BB, BD)
            gates += 4 * programs
            memory += 2 * programs
            store(memory, slots, c, None, BB, BD)
            store(memory + size, slots, n, None, BB, BD)

    store(h_T, state_tile, h, mask, BB, BD)
    store(c_T, state_tile, c, mask, BB, BD)
    store(n_T, state_tile, n, mask, BB, BD)
    store(m_T, state_tile, m, mask, BB, BD)


class Saved(NamedTuple):
    """What the backward reads again, beside y, R and the first h.

    Either ``[steps, H, tiles, tensors, tile]``, padded, each tile in the order in which its threads
    hold it, or, where R is streamed, ``[steps, B, H, tensors, D]``.
    """

    gates: Tensor
    """4 tensors of T steps in the dtype of x: i - (m' + log f), and the raw f, z, o."""
    memory: Tensor
    """2 tensors of T + 1 steps: c and n before the first step, and after each."""


def empty_saved(x: Tensor, R: Tensor) -> Saved:
    """Room for what a forward over x ``[B, T, 4, H, D]`` saves."""
    B, T, _, H, D = x.shape
    tile = sequence_tile(device_class(x.device), D, R.dtype)
    streamed, tiles = tile.columns > 0, triton.cdiv(B, tile.rows)
    lead, last = ((B, H), D) if streamed else ((H, tiles), tile.rows * pad(D))
    memory = torch.empty(T + 1, *lead, 2, last, dtype=torch.float32, device=x.device)
    return Saved(x.new_empty(T, *lead, 4, last), memory)


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
    saved = empty_saved(x, R) if save else None
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
        "PRECISION": dot_precision(R.dtype, kind),
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
