"""The kernel of a single step: reset, product, bias, activation and the shift of the state."""
# mypy: allow-untyped-decorators, disable-error-code="import-untyped,no-untyped-def"

import triton
import triton.language as tl

from xlstm_rl.kernels.conv1d.triton.taps import load_tap
from xlstm_rl.kernels.products import narrow


@triton.jit(do_not_specialize=["B"])
def conv1d_step_kernel(
    x_ptr,  # [B, C]
    weight_ptr,  # [C, W]
    bias_ptr,  # [C] or None
    reset_ptr,  # [B] or None
    state_ptr,  # [B, W - 1, C] or None
    y_ptr,  # [B, C]
    end_ptr,  # [B, W - 1, C]; may be the state itself
    B,
    C,
    stride_xb,
    stride_xc,
    stride_wc,
    stride_ww,
    stride_bc,
    stride_rb,
    stride_sb,
    stride_sj,
    stride_sc,
    stride_eb,
    stride_ej,
    stride_ec,
    W: tl.constexpr,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """One program per tile of rows and channels, with all of their entries in the state.

    An entry is read before its younger neighbour is written over it, and no other program looks
    at it: so the state may be shifted in place.
    """
    b = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_b, in_c = b < B, c < C
    c_wide = c.to(tl.int64)[None, :]
    mask = in_b[:, None] & in_c[None, :]
    x = tl.load(x_ptr + (b * stride_xb)[:, None] + c_wide * stride_xc, mask=mask, other=0.0)

    out = x.to(tl.float32) * load_tap(weight_ptr, stride_wc, stride_ww, W - 1, c, in_c)
    if bias_ptr is not None:
        at = bias_ptr + c.to(tl.int64) * stride_bc
        out += tl.load(at, mask=in_c, other=0.0).to(tl.float32)[None, :]
    keep = mask
    if reset_ptr is not None:
        keep = mask & (tl.load(reset_ptr + b * stride_rb, mask=in_b, other=0) == 0)[:, None]
    end = end_ptr + (b * stride_eb)[:, None] + c_wide * stride_ec
    for j in tl.static_range(W - 1):
        if state_ptr is not None:
            at = state_ptr + (b * stride_sb)[:, None] + c_wide * stride_sc + j * stride_sj
            old = tl.load(at, mask=keep, other=0.0)
            out += old.to(tl.float32) * load_tap(weight_ptr, stride_wc, stride_ww, j, c, in_c)
        else:
            old = tl.zeros([ROWS, COLUMNS], end_ptr.dtype.element_ty)
        if j > 0:
            tl.store(end + (j - 1) * stride_ej, old, mask=mask)
    if W == 2:
        # every warp has read the one entry before x takes its place; where there are more, each is
        # stored by the threads that read it, or handed to them past a barrier
        tl.debug_barrier()
    if W > 1:
        tl.store(end + (W - 2) * stride_ej, x, mask=mask)
    if SILU:
        out = out * tl.sigmoid(out)
    at = (y_ptr + b * C)[:, None] + c[None, :]
    tl.store(at, narrow(out, y_ptr.dtype.element_ty), mask=mask)
