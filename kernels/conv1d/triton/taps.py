"""What the kernels of the convolution share: rows of a tile, and which of them a step still sees.

Step t sees the input d steps back unless an episode began in between: no reset at t - d + 1 .. t.
So the mask of tap d is that of tap d - 1 and one more look at the resets; no running sum is
needed, and what a mask hides is not even loaded.
"""
# mypy: allow-untyped-decorators, disable-error-code="import-untyped,no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def load_rows(ptr, stride, rows, keep, c, in_c):
    """The rows that are kept, in float32 `[rows, columns]`; 0 elsewhere."""
    # int64: a row's offset may pass 2^31 where time is the outermost axis in memory
    at = (ptr + rows.to(tl.int64) * stride)[:, None] + c[None, :]
    return tl.load(at, mask=keep[:, None] & in_c[None, :], other=0.0).to(tl.float32)


@triton.jit
def load_tap(weight_ptr, stride_wc, stride_ww, w, c, in_c):
    """The weights of the tap `w`, in float32 `[1, columns]`."""
    at = weight_ptr + c.to(tl.int64) * stride_wc + w * stride_ww
    return tl.load(at, mask=in_c, other=0.0).to(tl.float32)[None, :]


@triton.jit
def no_reset(reset_ptr, stride_rt, t, T):
    """Whether no episode begins at the steps `t`; none does outside of the sequence."""
    at = reset_ptr + t.to(tl.int64) * stride_rt
    return tl.load(at, mask=(t >= 0) & (t < T), other=0) == 0


@triton.jit
def preactivation(
    x_ptr,  # [T, C] of one sequence
    weight_ptr,  # [C, W]
    bias_ptr,  # [C] or None
    reset_ptr,  # [T] of one sequence, or None
    state_ptr,  # [W - 1, C] of one sequence, or None
    t0,
    c,
    in_c,
    T,
    stride_xt,
    stride_wc,
    stride_ww,
    stride_bc,
    stride_rt,
    stride_sj,
    W: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """The convolution at the steps from `t0` on `[ROWS, COLUMNS]`."""
    t = t0 + tl.arange(0, ROWS)
    out = tl.zeros([ROWS, COLUMNS], tl.float32)
    if bias_ptr is not None:
        at = bias_ptr + c.to(tl.int64) * stride_bc
        out += tl.load(at, mask=in_c, other=0.0).to(tl.float32)[None, :]
    alive = t < T
    for d in tl.static_range(W):
        if d > 0 and reset_ptr is not None:
            alive = alive & no_reset(reset_ptr, stride_rt, t - d + 1, T)
        seen = load_rows(x_ptr, stride_xt, t - d, alive & (t >= d), c, in_c)
        out += seen * load_tap(weight_ptr, stride_wc, stride_ww, W - 1 - d, c, in_c)
    if state_ptr is not None:
        # apart from the loop above, whose loads so have no branch between them
        if t0 < W - 1:
            alive = t < T
            for d in tl.static_range(1, W):
                if reset_ptr is not None:
                    alive = alive & no_reset(reset_ptr, stride_rt, t - d + 1, T)
                seen = load_rows(state_ptr, stride_sj, t - d + W - 1, alive & (t < d), c, in_c)
                out += seen * load_tap(weight_ptr, stride_wc, stride_ww, W - 1 - d, c, in_c)
    return out


@triton.jit
def input_gradient(
    dpre_ptr,  # [T, C] of one sequence, or None
    dend_ptr,  # [W - 1, C] of one sequence, or None
    weight_ptr,  # [C, W]
    reset_ptr,  # [T] of one sequence, or None
    t,
    c,
    in_c,
    T,
    stride_pt,
    stride_ej,
    stride_wc,
    stride_ww,
    stride_rt,
    W: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """What the inputs at the steps `t`, those before the sequence included, receive in all.

    The step d further on saw them unless an episode began at t + 1 .. t + d.
    """
    out = tl.zeros([ROWS, COLUMNS], tl.float32)
    alive = t < T
    for d in tl.static_range(W):
        if d > 0 and reset_ptr is not None:
            alive = alive & no_reset(reset_ptr, stride_rt, t + d, T)
        if dpre_ptr is not None:
            inside = alive & (t + d >= 0) & (t + d < T)
            dpre = load_rows(dpre_ptr, stride_pt, t + d, inside, c, in_c)
            out += dpre * load_tap(weight_ptr, stride_wc, stride_ww, W - 1 - d, c, in_c)
        if dend_ptr is not None and d == W - 2:  # `alive` now looks as far as the state does
            j = t - T + W - 1
            out += load_rows(dend_ptr, stride_ej, j, alive & (j >= 0), c, in_c)
    return out
