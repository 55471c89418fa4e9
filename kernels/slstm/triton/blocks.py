"""Tiles on their way between memory, the cell and the matrix units."""

import triton
import triton.language as tl

from xlstm_rl.kernels.products import dot, narrow


@triton.jit
def spread(BB: tl.constexpr, BD: tl.constexpr):
    """Rows and columns of a tile as ``[BB / 8, BD / 8, 8, 4, 2]``, and each element's own slot.

    What is loaded or stored in this shape the compiler gives to the threads that hold it in a
    product: two columns to a thread, four threads and then eight rows to a warp, the warps along
    the columns. So nothing has to be exchanged (on NVIDIA's matrix units; elsewhere it is).
    A tile that only these kernels see lies in memory by slot, all of it dense.
    """
    blocks = tl.arange(0, BB // 8)[:, None, None, None, None]
    warps = tl.arange(0, BD // 8)[None, :, None, None, None]
    lanes = tl.arange(0, 8)[None, None, :, None, None]
    pairs = tl.arange(0, 4)[None, None, None, :, None]
    ones = tl.arange(0, 2)[None, None, None, None, :]
    slots = blocks * (8 * BD) + warps * 64 + lanes * 8 + pairs * 2 + ones
    return blocks * 8 + lanes, warps * 8 + pairs * 2 + ones, slots


@triton.jit
def flat(v, BB: tl.constexpr, BD: tl.constexpr):
    """A tile ``[BB, BD]`` in float32 of one as `spread` has it."""
    v = tl.reshape(tl.permute(v, (0, 2, 1, 3, 4)), [BB, BD])
    return v.to(tl.float32)


@triton.jit
def store(ptr, offsets, v, mask, BB: tl.constexpr, BD: tl.constexpr):
    """Store a float32 tile ``[BB, BD]`` at offsets as `spread` has them."""
    v = narrow(v, ptr.dtype.element_ty)
    v = tl.permute(tl.reshape(v, [BB // 8, 8, BD // 8, 4, 2]), (0, 2, 1, 3, 4))
    tl.store(ptr + offsets, v, mask=mask)


@triton.jit
def load(ptr, offsets, mask):
    """A tile as it is, 0 where the mask, if there is one, says so."""
    return tl.load(ptr + offsets) if mask is None else tl.load(ptr + offsets, mask, other=0.0)


@triton.jit
def still(reset, rows, B, stride):
    """Of rows of any shape, which are there and in the same episode as before."""
    return (rows < B) & (tl.load(reset + rows * stride, mask=rows < B, other=1) == 0)


@triton.jit
def load_four(ptr, stride, offsets, mask):
    """Four tiles, ``stride`` apart, as they are."""
    stride = tl.cast(stride, tl.int64)  # the gates may be the outermost axis
    v_0 = load(ptr, offsets, mask)
    v_1 = load(ptr + stride, offsets, mask)
    v_2 = load(ptr + 2 * stride, offsets, mask)
    v_3 = load(ptr + 3 * stride, offsets, mask)
    return v_0, v_1, v_2, v_3


@triton.jit
def store_four(ptr, stride, offsets, v_0, v_1, v_2, v_3, mask, BB: tl.constexpr, BD: tl.constexpr):
    """Store four tiles ``stride`` apart."""
    store(ptr, offsets, v_0, mask, BB, BD)
    store(ptr + stride, offsets, v_1, mask, BB, BD)
    store(ptr + 2 * stride, offsets, v_2, mask, BB, BD)
    store(ptr + 3 * stride, offsets, v_3, mask, BB, BD)


@triton.jit
def pack_four(v_0, v_1, v_2, v_3, BB: tl.constexpr, BD: tl.constexpr):
    """One block ``[BB, 4, BD]`` of four tiles ``[BB, BD]``."""
    v = tl.join(tl.join(v_0, v_2), tl.join(v_1, v_3))
    return tl.permute(tl.reshape(v, [BB, BD, 4]), (0, 2, 1))


@triton.jit
def pack_two(v_0, v_1):
    """One block ``[BB, 2, BD]`` of two tiles ``[BB, BD]``."""
    return tl.permute(tl.join(v_0, v_1), (0, 2, 1))


@triton.jit
def load_biases(b, stride, cols, D: tl.constexpr):
    """The four rows ``[1, cols]`` in float32."""
    mask = cols < D
    b_i = tl.load(b + cols, mask=mask, other=0.0).to(tl.float32)[None, :]
    b_f = tl.load(b + stride + cols, mask=mask, other=0.0).to(tl.float32)[None, :]
    b_z = tl.load(b + 2 * stride + cols, mask=mask, other=0.0).to(tl.float32)[None, :]
    b_o = tl.load(b + 3 * stride + cols, mask=mask, other=0.0).to(tl.float32)[None, :]
    return b_i, b_f, b_z, b_o


@triton.jit
def load_matrix(R, froms, cols, D: tl.constexpr):
    """One matrix ``[froms, cols]``."""
    mask = (froms < D)[:, None] & (cols < D)[None, :]
    return tl.load(R + froms[:, None] * D + cols[None, :], mask=mask, other=0.0)


@triton.jit
def load_transposed(R, stride, cols, COUNT: tl.constexpr, D: tl.constexpr, BD: tl.constexpr):
    """COUNT matrices, ``stride`` apart, transposed, below each other: ``[COUNT BD, cols]``."""
    which = tl.arange(0, COUNT * BD)
    gates, tos = (which // BD).to(tl.int64), which % BD
    tile = (gates * stride + tos)[:, None] + cols[None, :] * D
    return tl.load(R + tile, mask=(tos < D)[:, None] & (cols < D)[None, :], other=0.0)


@triton.jit
def load_part(a, rows, in_rows, ks, w, D: tl.constexpr):
    """The columns ks of ``a``, float32 or less, in the dtype of w."""
    mask = in_rows[:, None] & (ks < D)[None, :]
    part = tl.load(a + rows[:, None] + ks[None, :], mask=mask, other=0.0)
    return narrow(part.to(tl.float32), w.dtype.element_ty)


@triton.jit
def add_mixed(
    i,
    f,
    z,
    o,
    h,
    rows,
    in_rows,
    R,
    stride,
    cols,
    end,
    D: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Add ``h [rows, D] @ R[gate, :, cols]`` to the gates, both read from memory, BK at a time."""
    R_f, R_z, R_o = R + stride, R + 2 * stride, R + 3 * stride
    for k in range(0, end, BK):
        ks = k + tl.arange(0, BK)
        a = load_part(h, rows, in_rows, ks, R, D)
        tile = ks[:, None] * D + cols[None, :]
        mask = (ks < D)[:, None] & (cols < D)[None, :]
        i = dot(a, tl.load(R + tile, mask=mask, other=0.0), PRECISION, i)
        f = dot(a, tl.load(R_f + tile, mask=mask, other=0.0), PRECISION, f)
        z = dot(a, tl.load(R_z + tile, mask=mask, other=0.0), PRECISION, z)
        o = dot(a, tl.load(R_o + tile, mask=mask, other=0.0), PRECISION, o)
    return i, f, z, o


@triton.jit
def add_unmixed(
    acc,
    d,
    rows,
    in_rows,
    apart,
    R,
    stride,
    cols,
    end,
    D: tl.constexpr,
    BK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``acc`` and the sum over the gates, ``apart``, of ``d [rows, D] @ R[gate, cols, :]^T``."""
    for k in range(0, end, BK):
        ks = k + tl.arange(0, BK)
        tile = ks[:, None] + cols[None, :] * D
        mask = (ks < D)[:, None] & (cols < D)[None, :]
        for gate in tl.static_range(4):
            a = load_part(d + gate * apart, rows, in_rows, ks, R, D)
            w = tl.load(R + gate * stride + tile, mask=mask, other=0.0)
            acc = dot(a, w, PRECISION, acc)
    return acc
