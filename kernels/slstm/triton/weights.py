"""Gradients of R and b: one product over all steps and rows, in parts that are then summed."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.launch import device_class, dot_precision, launch
from xlstm_rl.kernels.products import dot, narrow
from xlstm_rl.kernels.slstm.triton.tiles import weights_tile

_PROGRAMS = 1024  # a few for every multiprocessor


@triton.jit(do_not_specialize=["N", "T", "H"])
def slstm_weights_kernel(
    y,  # [B, T, H, D]
    h_0,  # [B, H, D] or None
    reset,  # [B, T] or None
    dx,  # [B, T, 4, H, D]
    dR,  # [parts, 4, H, D, D]
    db,  # [parts, 4, H, D]
    N,  # B * T
    T,
    H,
    part,  # of the N, how many for one program; a multiple of BN
    reset_b,
    reset_t,
    D: tl.constexpr,
    PRECISION: tl.constexpr,
    BN: tl.constexpr,
    BD: tl.constexpr,
):
    """``dR [from, to] = sum of h'^T dx``: a tile ``[BD, BD]`` of one head and gate, of one part.

    h' is what the step saw: y of the step before, h_0 at the first step, 0 where there was a reset.
    """
    tiles: tl.constexpr = (D + BD - 1) // BD
    program = tl.program_id(0)
    froms = program % tiles * BD + tl.arange(0, BD)
    tos = program // tiles % tiles * BD + tl.arange(0, BD)
    of_parts = (program // (tiles * tiles)).to(tl.int64)
    head = tl.program_id(1).to(tl.int64)
    gate = tl.program_id(2)
    HD = H.to(tl.int64) * D
    N = N.to(tl.int64)
    y += head * D - HD  # one step before
    dx += gate * HD + head * D
    acc = tl.zeros([BD, BD], tl.float32)
    total = tl.zeros([BD], tl.float32)
    for start in range(0, part, BN):
        rows = of_parts * part + start + tl.arange(0, BN)  # [BN], of B * T
        at, t = rows // T, rows % T
        in_rows = rows < N
        h_mask = in_rows[:, None] & (froms < D)[None, :]
        d_mask = in_rows[:, None] & (tos < D)[None, :]
        h = tl.load(
            y + (rows * HD)[:, None] + froms[None, :], mask=h_mask & (t > 0)[:, None], other=0.0
        )
        if h_0 is not None:
            h_tile = (at * HD + head * D)[:, None] + froms[None, :]
            first = tl.load(h_0 + h_tile, mask=h_mask & (t == 0)[:, None], other=0.0)
            h = tl.where((t == 0)[:, None], narrow(first.to(tl.float32), h.dtype), h)
        if reset is not None:
            fresh = tl.load(reset + at * reset_b + t * reset_t, mask=in_rows, other=0)
            h = tl.where((fresh != 0)[:, None], 0.0, h)
        d = tl.load(dx + (rows * 4 * HD)[:, None] + tos[None, :], mask=d_mask, other=0.0)
        acc = dot(tl.trans(h), d, PRECISION, acc)
        total += tl.sum(d.to(tl.float32), 0)
    out = (of_parts * 4 + gate) * HD + head * D  # of db; times D: of dR
    tile = froms[:, None] * D + tos[None, :]
    tl.store(dR + out * D + tile, acc, mask=(froms < D)[:, None] & (tos < D)[None, :])
    # every row of tiles has the same sum: the first one writes it
    tl.store(db + out + tos, total, mask=tos < tl.where(program % tiles == 0, D, 0))


def weight_grads(
    y: Tensor, h_0: Tensor | None, reset: Tensor | None, dx: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of R ``[4, H, D, D]`` and b ``[4, H, D]`` in float32."""
    B, T, _, H, D = dx.shape
    N = B * T
    if N == 0:
        return dx.new_zeros(4, H, D, D), dx.new_zeros(4, H, D)
    h_0 = None if h_0 is None else h_0.contiguous()
    kind = device_class(dx.device)
    tile = weights_tile(kind, D, dx.dtype)
    tiles = triton.cdiv(D, tile.columns) ** 2
    parts = max(1, min(_PROGRAMS // (4 * H * tiles), N // (4 * tile.rows)))
    part = triton.cdiv(triton.cdiv(N, parts), tile.rows) * tile.rows
    parts = triton.cdiv(N, part)
    dR = torch.empty(parts, 4, H, D, D, dtype=torch.float32, device=dx.device)
    db = torch.empty(parts, 4, H, D, dtype=torch.float32, device=dx.device)
    launch(
        dx.device,
        slstm_weights_kernel,
        (tiles * parts, H, 4),
        y=y,
        h_0=h_0,
        reset=reset,
        dx=dx,
        dR=dR,
        db=db,
        N=N,
        T=T,
        H=H,
        part=part,
        reset_b=0 if reset is None else reset.stride(0),
        reset_t=0 if reset is None else reset.stride(1),
        D=D,
        PRECISION=dot_precision(dx.dtype, kind),
        BN=tile.rows,
        BD=tile.columns,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return (dR[0], db[0]) if parts == 1 else (dR.sum(0), db.sum(0))
