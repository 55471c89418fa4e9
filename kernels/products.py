"""Products of tiles and the rounding of their operands: under the interpreter as on a GPU."""

import triton
import triton.language as tl

from xlstm_rl.kernels.launch import interpreting

_INTERPRETING = tl.constexpr(interpreting())


@triton.jit
def dot(a, b, PRECISION: tl.constexpr, acc=None):
    """``acc + a @ b`` for operands of one dtype, summed in float32; without ``acc``, from zero."""
    if _INTERPRETING:  # it would multiply the bits of bfloat16 as integers
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision=PRECISION)


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """Float32 ``x`` in ``dtype``, rounded to the nearest."""
    if _INTERPRETING and dtype == tl.bfloat16:  # there the cast itself cuts the digits off
        bits = x.to(tl.int32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        x = (bits & -0x10000).to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def part(x, dtype: tl.constexpr):
    """Float32 ``x`` as two of ``dtype``, whose sum is off by its precision squared."""
    if dtype == tl.bfloat16:  # its leading bits: cutting them off is cheaper than rounding
        bits = x.to(tl.int32, bitcast=True)
        exact = (bits & -0x10000).to(tl.float32, bitcast=True)
        if _INTERPRETING:
            high = exact.to(dtype)
        else:
            high = (bits >> 16).to(tl.int16).to(dtype, bitcast=True)
    else:
        high = narrow(x, dtype)
        exact = high.to(tl.float32)
    return high, narrow(x - exact, dtype)


@triton.jit
def dot_mixed(a, b, PRECISION: tl.constexpr, acc=None):
    """``acc + a @ b`` where one operand may be float32 and the other not.

    The float32 one goes in as two, see `part`: nothing is rounded away that the sum would
    show, at the price of a second product.
    """
    if a.dtype == b.dtype:
        acc = dot(a, b, PRECISION, acc)
    elif a.dtype == tl.float32:
        high, low = part(a, b.dtype)
        acc = dot(high, b, PRECISION, acc)
        acc = dot(low, b, PRECISION, acc)
    else:
        high, low = part(b, a.dtype)
        acc = dot(a, high, PRECISION, acc)
        acc = dot(a, low, PRECISION, acc)
    return acc
