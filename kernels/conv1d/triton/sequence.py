"""The kernels over whole sequences: forward, and two for the backward.

Each program holds a tile of steps and channels of one sequence; no program waits for another.
`x`, `dy` and the like have neighbouring channels next to each other in memory, outputs are dense.
Conditions on what is compiled and conditions at run time stand in two `if`s, one in the other:
the compiler drops what the first one excludes.
"""
# mypy: allow-untyped-decorators, disable-error-code="import-untyped,no-untyped-def"

import triton
import triton.language as tl

from xlstm_rl.kernels.conv1d.triton.taps import (
    input_gradient,
    load_rows,
    no_reset,
    preactivation,
)
from xlstm_rl.kernels.products import narrow


@triton.jit(do_not_specialize=["T"])
def conv1d_fwd_kernel(
    x_ptr,  # [B, T, C]
    weight_ptr,  # [C, W]
    bias_ptr,  # [C] or None
    reset_ptr,  # [B, T] or None
    state_ptr,  # [B, W - 1, C] or None
    y_ptr,  # [B, T, C]
    end_ptr,  # [B, W - 1, C]: the state after the last step
    T,
    C,
    stride_xb,
    stride_xt,
    stride_wc,
    stride_ww,
    stride_bc,
    stride_rb,
    stride_rt,
    stride_sb,
    stride_sj,
    W: tl.constexpr,
    BLOCK_W: tl.constexpr,  # a power of two, at least W - 1
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Write y and the state after the last step; one program per tile."""
    tiles = tl.cdiv(T, ROWS)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    t0 = tl.program_id(0) % tiles * ROWS
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_c = c < C
    x_ptr += b * stride_xb
    if reset_ptr is not None:
        reset_ptr += b * stride_rb
    if state_ptr is not None:
        state_ptr += b * stride_sb

    out = preactivation(
        x_ptr,
        weight_ptr,
        bias_ptr,
        reset_ptr,
        state_ptr,
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
        W,
        ROWS,
        COLUMNS,
    )
    if SILU:
        out = out * tl.sigmoid(out)
    t = t0 + tl.arange(0, ROWS)
    at = (y_ptr + (b * T + t) * C)[:, None] + c[None, :]
    tl.store(at, narrow(out, y_ptr.dtype.element_ty), mask=(t < T)[:, None] & in_c[None, :])

    if W > 1:
        if t0 + ROWS >= T:  # the program of the last step also writes the state
            j = tl.arange(0, BLOCK_W)
            t_j = T - W + 1 + j
            alive = j < W - 1
            if reset_ptr is not None:
                for d in tl.static_range(1, W - 1):
                    alive = alive & no_reset(reset_ptr, stride_rt, t_j + d, T)
            end = load_rows(x_ptr, stride_xt, t_j, alive & (t_j >= 0), c, in_c)
            if state_ptr is not None:
                end += load_rows(state_ptr, stride_sj, t_j + W - 1, alive & (t_j < 0), c, in_c)
            at_j = (end_ptr + (b * (W - 1) + j) * C)[:, None] + c[None, :]
            mask_j = (j < W - 1)[:, None] & in_c[None, :]
            tl.store(at_j, narrow(end, end_ptr.dtype.element_ty), mask=mask_j)


@triton.jit(do_not_specialize=["T"])
def conv1d_bwd_weight_kernel(
    dy_ptr,  # [B, T, C]
    x_ptr,  # [B, T, C]
    weight_ptr,  # [C, W]
    bias_ptr,  # [C] or None
    reset_ptr,  # [B, T] or None
    state_ptr,  # [B, W - 1, C] or None
    dpre_ptr,  # [B, T, C]: the gradient of the pre-activation, or None
    sums_ptr,  # [programs of axis 0, W + 1, C]: the taps' gradients, then the bias's
    T,
    C,
    stride_yb,
    stride_yt,
    stride_xb,
    stride_xt,
    stride_wc,
    stride_ww,
    stride_bc,
    stride_rb,
    stride_rt,
    stride_sb,
    stride_sj,
    W: tl.constexpr,
    BLOCK_W: tl.constexpr,  # a power of two, at least W + 1
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PASSES: tl.constexpr,
):
    """Compute the pre-activation again, write its gradient, and sum those of taps and bias."""
    parts = tl.cdiv(T, ROWS * PASSES)
    b = (tl.program_id(0) // parts).to(tl.int64)
    first = tl.program_id(0) % parts * (ROWS * PASSES)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_c = c < C
    dy_ptr += b * stride_yb
    x_ptr += b * stride_xb
    if reset_ptr is not None:
        reset_ptr += b * stride_rb
    if state_ptr is not None:
        state_ptr += b * stride_sb

    w = tl.arange(0, BLOCK_W)[:, None]
    sums = tl.zeros([BLOCK_W, COLUMNS], tl.float32)
    for t0 in range(first, tl.minimum(first + ROWS * PASSES, T), ROWS):
        t = t0 + tl.arange(0, ROWS)
        dpre = load_rows(dy_ptr, stride_yt, t, t < T, c, in_c)
        if SILU:
            pre = preactivation(
                x_ptr,
                weight_ptr,
                bias_ptr,
                reset_ptr,
                state_ptr,
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
                W,
                ROWS,
                COLUMNS,
            )
            s = tl.sigmoid(pre)
            dpre = dpre * (s + pre * s * (1 - s))
            at = (dpre_ptr + (b * T + t) * C)[:, None] + c[None, :]
            tl.store(
                at, narrow(dpre, dpre_ptr.dtype.element_ty), mask=(t < T)[:, None] & in_c[None, :]
            )
        sums += tl.where(w == W, tl.sum(dpre, 0)[None, :], 0.0)
        alive = t < T
        for d in tl.static_range(W):
            if d > 0 and reset_ptr is not None:
                alive = alive & no_reset(reset_ptr, stride_rt, t - d + 1, T)
            seen = load_rows(x_ptr, stride_xt, t - d, alive & (t >= d), c, in_c)
            sums += tl.where(w == W - 1 - d, tl.sum(dpre * seen, 0)[None, :], 0.0)
        if state_ptr is not None:
            if t0 < W - 1:
                alive = t < T
                for d in tl.static_range(1, W):
                    if reset_ptr is not None:
                        alive = alive & no_reset(reset_ptr, stride_rt, t - d + 1, T)
                    seen = load_rows(state_ptr, stride_sj, t - d + W - 1, alive & (t < d), c, in_c)
                    sums += tl.where(w == W - 1 - d, tl.sum(dpre * seen, 0)[None, :], 0.0)
    at = sums_ptr + (tl.program_id(0).to(tl.int64) * (W + 1) + w) * C + c[None, :]
    tl.store(at, sums, mask=(w <= W) & in_c[None, :])


@triton.jit(do_not_specialize=["T"])
def conv1d_bwd_input_kernel(
    dpre_ptr,  # [B, T, C] or None
    dend_ptr,  # [B, W - 1, C]: the gradient of the state after the last step, or None
    weight_ptr,  # [C, W]
    reset_ptr,  # [B, T] or None
    dx_ptr,  # [B, T, C]
    dstate_ptr,  # [B, W - 1, C] or None
    T,
    C,
    stride_pb,
    stride_pt,
    stride_eb,
    stride_ej,
    stride_wc,
    stride_ww,
    stride_rb,
    stride_rt,
    W: tl.constexpr,
    BLOCK_W: tl.constexpr,  # a power of two, at least W - 1
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Gather what the inputs receive, and what the entries of the first state receive."""
    tiles = tl.cdiv(T, ROWS)
    b = (tl.program_id(0) // tiles).to(tl.int64)
    t0 = tl.program_id(0) % tiles * ROWS
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    in_c = c < C
    if dpre_ptr is not None:
        dpre_ptr += b * stride_pb
    if dend_ptr is not None:
        dend_ptr += b * stride_eb
    if reset_ptr is not None:
        reset_ptr += b * stride_rb

    t = t0 + tl.arange(0, ROWS)
    dx = input_gradient(
        dpre_ptr,
        dend_ptr,
        weight_ptr,
        reset_ptr,
        t,
        c,
        in_c,
        T,
        stride_pt,
        stride_ej,
        stride_wc,
        stride_ww,
        stride_rt,
        W,
        ROWS,
        COLUMNS,
    )
    at = (dx_ptr + (b * T + t) * C)[:, None] + c[None, :]
    tl.store(at, narrow(dx, dx_ptr.dtype.element_ty), mask=(t < T)[:, None] & in_c[None, :])

    if dstate_ptr is not None:
        if t0 == 0:  # the state holds the steps -(W - 1) .. -1
            j = tl.arange(0, BLOCK_W)
            dstate = input_gradient(
                dpre_ptr,
                dend_ptr,
                weight_ptr,
                reset_ptr,
                j - W + 1,
                c,
                in_c,
                T,
                stride_pt,
                stride_ej,
                stride_wc,
                stride_ww,
                stride_rt,
                W,
                BLOCK_W,
                COLUMNS,
            )
            at_j = (dstate_ptr + (b * (W - 1) + j) * C)[:, None] + c[None, :]
            mask_j = (j < W - 1)[:, None] & in_c[None, :]
            tl.store(at_j, narrow(dstate, dstate_ptr.dtype.element_ty), mask=mask_j)
