"""One step of the sLSTM in one launch: product, gates, state update and resets."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.inplace import has_own_memory, note_overwritten
from xlstm_rl.kernels.launch import device_class, dot_precision, launch
from xlstm_rl.kernels.slstm.triton.blocks import (
    add_mixed,
    flat,
    load,
    load_biases,
    load_four,
    spread,
    still,
    store,
)
from xlstm_rl.kernels.slstm.triton.cell import advance
from xlstm_rl.kernels.slstm.triton.forward import dense
from xlstm_rl.kernels.slstm.triton.tiles import pad, step_tile
from xlstm_rl.kernels.types import exp_bound


@triton.jit(do_not_specialize=["B", "H", "end"])
def slstm_step_kernel(
    x,  # [B, 4, H, D], strides below
    R,  # [4, H, D, D]
    b,  # [4, H, D]
    reset,  # [B] or None
    h_0,  # [B, H, D] or None, as are c_0, n_0, m_0; one pair of strides for each
    c_0,
    n_0,
    m_0,
    y,  # [B, H, D], dense
    h_1,  # [B, H, D], as are c_1, n_1, m_1; maybe the same memory as h_0, ...
    c_1,
    n_1,
    m_1,
    B,
    H,
    x_b,
    x_g,
    x_h,
    reset_b,
    h_b,
    h_h,
    c_b,
    c_h,
    n_b,
    n_h,
    m_b,
    m_h,
    end,  # D, but not at compile time: an unrolled loop would need too many registers
    D: tl.constexpr,
    SIGMOID: tl.constexpr,
    EXP_BOUND: tl.constexpr,
    PRECISION: tl.constexpr,
    BB: tl.constexpr,
    BD: tl.constexpr,
    BK: tl.constexpr,
):
    """A tile of whole rows of one head: nothing is read here that another program overwrites."""
    head = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0).to(tl.int64) * BB
    rows = first + tl.arange(0, BB)  # [BB], to multiply
    ns = tl.arange(0, BD)
    tile_rows, cols, _ = spread(BB, BD)
    tile_rows = first + tile_rows
    mask = (tile_rows < B) & (cols < D)
    HD = H.to(tl.int64) * D

    old, old_rows = mask, rows < B
    if reset is not None:
        # a row that starts afresh is not read at all: not even a NaN of the last episode survives
        old_rows = still(reset, rows, B, reset_b)
        old = still(reset, tile_rows, B, reset_b) & (cols < D)
    h_tile = tile_rows * h_b + head * h_h + cols
    c_tile = tile_rows * c_b + head * c_h + cols
    n_tile = tile_rows * n_b + head * n_h + cols
    m_tile = tile_rows * m_b + head * m_h + cols
    x_tile = tile_rows * x_b + head * x_h + cols
    zeros = tl.zeros([BB, BD], tl.float32)
    c, n, m = zeros, zeros, zeros
    i, f, z, o = load_biases(b + head * D, HD, ns, D)
    i, f, z, o = zeros + i, zeros + f, zeros + z, zeros + o
    if h_0 is not None:
        h_rows, w = rows * h_b + head * h_h, R + head * D * D
        i, f, z, o = add_mixed(
            i, f, z, o, h_0, h_rows, old_rows, w, HD * D, ns, end, D, BK, PRECISION
        )
        c = flat(load(c_0, c_tile, old), BB, BD)
        n = flat(load(n_0, n_tile, old), BB, BD)
        m = flat(load(m_0, m_tile, old), BB, BD)
    x_i, x_f, x_z, x_o = load_four(x, x_g, x_tile, mask)
    i, f = i + flat(x_i, BB, BD), f + flat(x_f, BB, BD)
    z, o = z + flat(x_z, BB, BD), o + flat(x_o, BB, BD)

    _, h, c, n, m = advance(i, f, z, o, c, n, m, SIGMOID, EXP_BOUND)
    tl.debug_barrier()  # every warp has read all of h before any writes a part of it
    store(y, tile_rows * HD + head * D + cols, h, mask, BB, BD)
    store(h_1, h_tile, h, mask, BB, BD)
    store(c_1, c_tile, c, mask, BB, BD)
    store(n_1, n_tile, n, mask, BB, BD)
    store(m_1, m_tile, m, mask, BB, BD)


def step(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    h: Tensor | None,
    c: Tensor | None,
    n: Tensor | None,
    m: Tensor | None,
    forget_gate: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """``h [B, H, D]`` and the h, c, n, m after the step, in fresh memory."""
    B, _, H, D = x.shape
    old = [s.contiguous() for s in (h, c, n, m) if s is not None]
    new = [torch.empty(B, H, D, dtype=torch.float32, device=x.device) for _ in range(4)]
    y = _step(x, R, b, reset, old or None, new, forget_gate)
    return y, new[0], new[1], new[2], new[3]


def step_inplace(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    h: Tensor,
    c: Tensor,
    n: Tensor,
    m: Tensor,
    forget_gate: str,
) -> Tensor:
    """``h [B, H, D]``; the state is overwritten."""
    state = (h, c, n, m)
    own = [s if _writable(s) else s.contiguous() for s in state]
    y = _step(x, R, b, reset, own, own, forget_gate)
    note_overwritten(s for s, o in zip(state, own, strict=True) if s is o)
    for s, o in zip(state, own, strict=True):
        if s is not o:
            s.copy_(o)
    return y


def _writable(s: Tensor) -> bool:
    """Whether the kernel may write there: a dense last axis, no element twice in memory."""
    return has_own_memory(s) and (s.stride(-1) == 1 or s.shape[-1] == 1)


def _step(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    old: list[Tensor] | None,
    new: list[Tensor],
    forget_gate: str,
) -> Tensor:
    """Launch; old and new tensors of a pair have the same strides."""
    x, R, b = dense(x), R.contiguous(), b.contiguous()
    B, _, H, D = x.shape
    y = x.new_empty(B, H, D)
    h_0, c_0, n_0, m_0 = (None,) * 4 if old is None else old
    h, c, n, m = new
    kind = device_class(x.device)
    tile = step_tile(kind, D, R.dtype)
    if B > 0:
        launch(
            x.device,
            slstm_step_kernel,
            (triton.cdiv(B, tile.rows), H),
            x=x,
            R=R,
            b=b,
            reset=reset,
            h_0=h_0,
            c_0=c_0,
            n_0=n_0,
            m_0=m_0,
            y=y,
            h_1=h,
            c_1=c,
            n_1=n,
            m_1=m,
            B=B,
            H=H,
            x_b=x.stride(0),
            x_g=x.stride(1),
            x_h=x.stride(2),
            reset_b=0 if reset is None else reset.stride(0),
            h_b=h.stride(0),
            h_h=h.stride(1),
            c_b=c.stride(0),
            c_h=c.stride(1),
            n_b=n.stride(0),
            n_h=n.stride(1),
            m_b=m.stride(0),
            m_h=m.stride(1),
            end=D,
            D=D,
            SIGMOID=forget_gate == "sigmoid",
            EXP_BOUND=exp_bound(torch.float32),
            PRECISION=dot_precision(R.dtype, kind),
            BB=tile.rows,
            BD=pad(D),
            BK=tile.depth,
            num_warps=tile.warps,
            num_stages=tile.stages,
        )
    return y
