"""From tensors to launches: shapes, strides and tiles of the convolution's kernels."""

import torch
from torch import Tensor

from xlstm_rl.kernels.conv1d.triton.sequence import (
    conv1d_bwd_input_kernel,
    conv1d_bwd_weight_kernel,
    conv1d_fwd_kernel,
)
from xlstm_rl.kernels.conv1d.triton.step import conv1d_step_kernel
from xlstm_rl.kernels.conv1d.triton.tiles import choose_tile, power_of_two
from xlstm_rl.kernels.launch import device_class, launch


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """``y [B, T, C]`` and the state after the last step ``[B, W - 1, C]``, in one launch."""
    (B, T, C), W = x.shape, weight.shape[1]
    x, state = _unit_columns(x), _given_state(state)
    y, end = _empty(x, B, T, C), _empty(x, B, W - 1, C)
    tile = choose_tile(device_class(x.device), "forward", T, C, W)
    grid = B * -(-T // tile.rows), -(-C // tile.columns)
    if B and C:
        launch(
            x.device,
            conv1d_fwd_kernel,
            grid,
            x_ptr=x,
            weight_ptr=weight,
            bias_ptr=bias,
            reset_ptr=reset,
            state_ptr=state,
            y_ptr=y,
            end_ptr=end,
            T=T,
            C=C,
            **_strides("x", x, "bt"),
            **_strides("w", weight, "cw"),
            **_strides("b", bias, "c"),
            **_strides("r", reset, "bt"),
            **_strides("s", state, "bj"),
            W=W,
            BLOCK_W=power_of_two(W - 1),
            SILU=activation == "silu",
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.num_warps,
            num_stages=1,
        )
    return y, end


def backward(
    dy: Tensor | None,
    dend: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> list[Tensor]:
    """The gradients of x, of weight and, where they were given, of bias and state."""
    dpre, sums = None, None
    if dy is not None:
        dpre, sums = _backward_weight(dy, x, weight, bias, reset, state, activation)
    dx, dstate = _backward_input(dpre, dend, x, weight, reset, state)
    dweight = torch.empty(weight.shape, dtype=weight.dtype, device=x.device)
    dbias = None if bias is None else torch.empty(bias.shape, dtype=bias.dtype, device=x.device)
    if sums is None:
        dweight.zero_()
        dbias = None if dbias is None else dbias.zero_()
    else:
        dweight.copy_(sums[:-1].t())
        dbias = None if dbias is None else dbias.copy_(sums[-1])
    return [g for g in (dx, dweight, dbias, dstate) if g is not None]


def _backward_weight(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
) -> tuple[Tensor, Tensor]:
    """The gradient of the pre-activation ``[B, T, C]``; of taps and bias ``[W + 1, C]``."""
    (B, T, C), W = x.shape, weight.shape[1]
    silu = activation == "silu"
    dy, x, state = _unit_columns(dy), _unit_columns(x), _given_state(state)
    # rounded like every other gradient between two operations: a third less to move for halves
    dpre = _empty(x, B, T, C) if silu else dy
    tile = choose_tile(device_class(x.device), "weight_gradient", T, C, W)
    grid = B * -(-T // (tile.rows * tile.passes)), -(-C // tile.columns)
    sums = x.new_empty((grid[0], W + 1, C), dtype=torch.float32)
    if B and C:
        launch(
            x.device,
            conv1d_bwd_weight_kernel,
            grid,
            dy_ptr=dy,
            x_ptr=x,
            weight_ptr=weight,
            bias_ptr=bias,
            reset_ptr=reset,
            state_ptr=state,
            dpre_ptr=dpre if silu else None,
            sums_ptr=sums,
            T=T,
            C=C,
            **_strides("y", dy, "bt"),
            **_strides("x", x, "bt"),
            **_strides("w", weight, "cw"),
            **_strides("b", bias, "c"),
            **_strides("r", reset, "bt"),
            **_strides("s", state, "bj"),
            W=W,
            BLOCK_W=power_of_two(W + 1),
            SILU=silu,
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            PASSES=tile.passes,
            num_warps=tile.num_warps,
            num_stages=1,
        )
    return dpre, sums.sum(0)  # added up by torch in a fixed order: the same bits every time


def _backward_input(
    dpre: Tensor | None,
    dend: Tensor | None,
    x: Tensor,
    weight: Tensor,
    reset: Tensor | None,
    state: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """The gradients of x ``[B, T, C]`` and, if there was one, of the state ``[B, W - 1, C]``."""
    (B, T, C), W = x.shape, weight.shape[1]
    dend = _given_state(dend)
    dx = _empty(x, B, T, C)
    dstate = None if state is None else _empty(x, B, W - 1, C)
    tile = choose_tile(device_class(x.device), "input_gradient", T, C, W)
    grid = B * -(-T // tile.rows), -(-C // tile.columns)
    if B and C:
        launch(
            x.device,
            conv1d_bwd_input_kernel,
            grid,
            dpre_ptr=dpre,
            dend_ptr=dend,
            weight_ptr=weight,
            reset_ptr=reset,
            dx_ptr=dx,
            dstate_ptr=_given_state(dstate),
            T=T,
            C=C,
            **_strides("p", dpre, "bt"),
            **_strides("e", dend, "bj"),
            **_strides("w", weight, "cw"),
            **_strides("r", reset, "bt"),
            W=W,
            BLOCK_W=power_of_two(W - 1),
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.num_warps,
            num_stages=1,
        )
    return dx, dstate


def step(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    reset: Tensor | None,
    state: Tensor | None,
    activation: str,
    end: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """``y [B, C]`` of x ``[B, C]`` and the state after it: written to ``end`` where given."""
    (B, C), W = x.shape, weight.shape[1]
    y = _empty(x, B, C)
    if end is None:
        end = _empty(x, B, W - 1, C)
    tile = choose_tile(device_class(x.device), "step", None, C, W)
    grid = -(-B // tile.rows), -(-C // tile.columns)
    if B and C:
        launch(
            x.device,
            conv1d_step_kernel,
            grid,
            x_ptr=x,
            weight_ptr=weight,
            bias_ptr=bias,
            reset_ptr=reset,
            state_ptr=state,
            y_ptr=y,
            end_ptr=end,
            B=B,
            C=C,
            **_strides("x", x, "bc"),
            **_strides("w", weight, "cw"),
            **_strides("b", bias, "c"),
            **_strides("r", reset, "b"),
            **_strides("s", state, "bjc"),
            **_strides("e", end, "bjc"),
            W=W,
            SILU=activation == "silu",
            ROWS=tile.rows,
            COLUMNS=tile.columns,
            num_warps=tile.num_warps,
            num_stages=1,
        )
    return y, end


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=like.dtype, device=like.device)


def _unit_columns(x: Tensor) -> Tensor:
    """``x``, copied only where neighbouring channels are not neighbours in memory."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _given_state(state: Tensor | None) -> Tensor | None:
    """A state that has entries: a single tap needs none."""
    return None if state is None or state.shape[1] == 0 else _unit_columns(state)


def _strides(name: str, x: Tensor | None, axes: str) -> dict[str, int]:
    """The strides of the first axes by the kernels' names for them; zeros where there is none."""
    return {f"stride_{name}{a}": 0 if x is None else x.stride(n) for n, a in enumerate(axes)}
