"""Tiles on their way between memory, the cell and the matrix units."""

import triton
import triton.language as tl

from xlstm_rl.kernels.launch import interpreting

_INTERPRETING = tl.constexpr(interpreting())


@triton.jit
def dot(a, w, acc, PRECISION: tl.constexpr):
    """``acc + a @ w`` for operands of one dtype, in float32."""
    if _INTERPRETING:  # it would multiply the bits of bfloat16 as integers
        a, w = a.to(tl.float32), w.to(tl.float32)
    return tl.dot(a, w, acc, input_precision=PRECISION)


@triton.jit
def narrow(v, dtype: tl.constexpr):
    """Float32 ``v`` in ``dtype``, rounded to the nearest."""
    if _INTERPRETING and dtype == tl.bfloat16:  # there the cast itself cuts the digits off
        bits = v.to(tl.int32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        v = (bits & -0x10000).to(tl.float32, bitcast=True)
    return v.to(dtype)


@triton.jit
def layers(rows, in_rows, stride, COUNT: tl.constexpr, cols, D: tl.constexpr):
    """Offsets and mask ``[rows, COUNT, cols]`` of tiles that lie ``stride`` apart.

    What is read or written for several gates goes as one block: the threads that multiply matrices
    hold other elements than those that read memory well, and each block is exchanged once.
    """
    which = tl.arange(0, COUNT).to(tl.int64)
    tile = rows[:, None, None] + (which * stride)[None, :, None] + cols[None, None, :]
    return tile, in_rows[:, None, None] & (cols < D)[None, None, :] & (which < COUNT)[None, :, None]


@triton.jit
def unpack_four(v, BB: tl.constexpr, BD: tl.constexpr):
    """Four tiles ``[BB, BD]`` in float32 of one block ``[BB, 4, BD]``."""
    v = tl.reshape(tl.permute(v.to(tl.float32), (0, 2, 1)), [BB, BD, 2, 2])
    v_02, v_13 = tl.split(v)
    v_0, v_2 = tl.split(v_02)
    v_1, v_3 = tl.split(v_13)
    return v_0, v_1, v_2, v_3


@triton.jit
def pack_four(v_0, v_1, v_2, v_3, BB: tl.constexpr, BD: tl.constexpr):
    """The inverse of :func:`unpack_four`."""
    v = tl.join(tl.join(v_0, v_2), tl.join(v_1, v_3))
    return tl.permute(tl.reshape(v, [BB, BD, 4]), (0, 2, 1))


@triton.jit
def unpack_two(v):
    """Two tiles ``[BB, BD]`` of one block ``[BB, 2, BD]``."""
    return tl.split(tl.permute(v, (0, 2, 1)))


@triton.jit
def pack_two(v_0, v_1):
    """The inverse of :func:`unpack_two`."""
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
def load_matrices(R, cols, stride, W_K: tl.constexpr, W_N: tl.constexpr, D: tl.constexpr):
    """The four matrices ``[D, D]``, ``stride`` apart, whose rows and columns are those apart."""
    tile = cols[:, None] * W_K + cols[None, :] * W_N
    mask = (cols < D)[:, None] & (cols < D)[None, :]
    R_i = tl.load(R + tile, mask=mask, other=0.0)
    R_f = tl.load(R + stride + tile, mask=mask, other=0.0)
    R_z = tl.load(R + 2 * stride + tile, mask=mask, other=0.0)
    R_o = tl.load(R + 3 * stride + tile, mask=mask, other=0.0)
    return R_i, R_f, R_z, R_o


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
        i = dot(a, tl.load(R + tile, mask=mask, other=0.0), i, PRECISION)
        f = dot(a, tl.load(R_f + tile, mask=mask, other=0.0), f, PRECISION)
        z = dot(a, tl.load(R_z + tile, mask=mask, other=0.0), z, PRECISION)
        o = dot(a, tl.load(R_o + tile, mask=mask, other=0.0), o, PRECISION)
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
            acc = dot(a, w, acc, PRECISION)
    return acc
