"""The gates of a whole sequence: what every weight between two steps is made of.

With `b_t` the sum of the log forget gates up to step t, the weight of step j in row i of the same
episode is `exp(c_j - u_i)`: `c_j = i_j - b_j`, and `u_i = m_i - b_i` is the largest c so far in
the episode. The same two numbers give the weights of and in the states between the chunks. They
are summed in float64 and kept as two float32 each: sums over a long sequence are far larger than
the differences that matter.

What was not written has no say in the largest c: neither a fresh state nor an input gate of -inf.
A forget gate that forgets all begins an episode of its own, as a reset does.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.launch import launch
from xlstm_rl.kernels.mlstm.triton.weights import pack
from xlstm_rl.kernels.types import LEAST_LOG_FORGET, exp_bound

_BLOCK = 1024  # steps at a time: one pass for most rollouts, few for the longest


class Gates(NamedTuple):
    """What the other kernels read; rows of `u` and `episode` are led by the first state's."""

    c: Tensor
    """``[B * H, T]`` int64: two float32 each, see ``pack`` in `weights.py`."""
    u: Tensor
    """``[B * H, T + 1]`` like `c`: entry t + 1 belongs to step t, entry 0 to the first state."""
    episode: Tensor
    """``[B * H, T + 1]`` int32: episodes begun so far, as for `u`."""
    floor: Tensor
    """``[B * H, T]`` float32: the least denominator, ``exp(-m)``."""
    m: Tensor
    """``[B, H]`` float32: the stabiliser of the final state."""
    source: Tensor
    """``[B * H]`` int32: the step whose input gate the final m comes from, -1: the first m, T: none
    of them, for nothing was written."""


def scan_gates(
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    C_0: Tensor | None,
    n_0: Tensor | None,
    m_0: Tensor | None,
    forget_gate: str,
) -> Gates:
    """Run over i, f ``[B, T, H]``, reset ``[B, T]`` and the first state, in one piece each."""
    B, T, H = i.shape
    K, V = (1, 1) if C_0 is None else C_0.shape[2:]
    new = i.new_empty
    gates = Gates(
        new((B * H, T), dtype=torch.int64),
        new((B * H, T + 1), dtype=torch.int64),
        new((B * H, T + 1), dtype=torch.int32),
        new((B * H, T), dtype=torch.float32),
        new((B, H), dtype=torch.float32),
        new((B * H,), dtype=torch.int32),
    )
    block = min(_BLOCK, max(16, triton.next_power_of_2(T)))
    launch(
        i.device,
        mlstm_gates_kernel,
        (B * H,),
        i_ptr=i,
        f_ptr=f,
        reset_ptr=reset,
        C_0_ptr=C_0,
        n_0_ptr=n_0,
        m_0_ptr=None if m_0 is None else m_0.contiguous(),
        c_ptr=gates.c,
        u_ptr=gates.u,
        episode_ptr=gates.episode,
        floor_ptr=gates.floor,
        m_ptr=gates.m,
        source_ptr=gates.source,
        T=T,
        H=H,
        K=K,
        V=V,
        stride_ib=i.stride(0),
        stride_it=i.stride(1),
        stride_ih=i.stride(2),
        stride_fb=f.stride(0),
        stride_ft=f.stride(1),
        stride_fh=f.stride(2),
        stride_rb=0 if reset is None else reset.stride(0),
        stride_rt=0 if reset is None else reset.stride(1),
        SIGMOID=forget_gate == "sigmoid",
        LEAST_LOG_F=LEAST_LOG_FORGET,
        BOUND=exp_bound(torch.float32),
        BLOCK=block,
        num_warps=max(1, min(8, block // 64)),
    )
    return gates


@triton.jit
def log_forget_gate(f, SIGMOID: tl.constexpr):
    """Return log sigmoid(f), or f, in float64."""
    f = f.to(tl.float64)
    if SIGMOID:
        return tl.minimum(f, 0.0) - tl.log(1.0 + tl.exp(-tl.abs(f)))
    else:
        return f


@triton.jit
def holds_nothing(ptr, size, BLOCK: tl.constexpr):
    """Whether `size` elements in one piece are all 0; a NaN is not."""
    found = tl.zeros([BLOCK], tl.int32)
    for start in range(0, size, BLOCK):
        at = start + tl.arange(0, BLOCK)
        found |= (tl.load(ptr + at, at < size, other=0.0) != 0.0).to(tl.int32)
    return tl.max(found, 0) == 0


@triton.jit
def is_fresh(C_ptr, n_ptr, m, bh, K, V):
    """Whether C, n and m of a head are all 0; C is only read where the others are."""
    fresh = m == 0.0
    if fresh:
        fresh = holds_nothing(n_ptr + bh * K, K, 64)
    if fresh:
        fresh = holds_nothing(C_ptr + bh * K * V, K * V, 512)
    return fresh


@triton.jit
def _latest_max(episode_a, a, episode_b, b):
    """A running maximum that starts anew with every episode; not a number after the first NaN."""
    larger = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
    return episode_b, tl.where(episode_a == episode_b, larger, b)


@triton.jit
def mlstm_gates_kernel(
    i_ptr,  # [B, T, H]
    f_ptr,  # [B, T, H]
    reset_ptr,  # [B, T] or None
    C_0_ptr,  # [B, H, K, V] or None, as are n_0, m_0
    n_0_ptr,  # [B, H, K]
    m_0_ptr,  # [B, H]
    c_ptr,  # [B * H, T]
    u_ptr,  # [B * H, T + 1]
    episode_ptr,  # [B * H, T + 1]
    floor_ptr,  # [B * H, T]
    m_ptr,  # [B, H]
    source_ptr,  # [B * H]
    T,
    H,
    K,
    V,
    stride_ib,
    stride_it,
    stride_ih,
    stride_fb,
    stride_ft,
    stride_fh,
    stride_rb,
    stride_rt,
    SIGMOID: tl.constexpr,
    LEAST_LOG_F: tl.constexpr,
    BOUND: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Scan the gates of one head of one environment."""
    bh = tl.program_id(0).to(tl.int64)
    batch, head = bh // H, bh % H
    i_ptr += batch * stride_ib + head * stride_ih
    f_ptr += batch * stride_fb + head * stride_fh
    if reset_ptr is not None:
        reset_ptr += batch * stride_rb
    c_ptr += bh * T
    floor_ptr += bh * T
    u_ptr += bh * (T + 1)
    episode_ptr += bh * (T + 1)

    # -3e38 stands for -inf, with which differences would be no numbers
    b_end = tl.zeros([], tl.float64)
    u_end = tl.full([], -3e38, tl.float64)
    source = tl.full([], T, tl.int32)
    fresh = tl.full([], 1, tl.int32)
    u_first = tl.zeros([], tl.float64)
    if m_0_ptr is not None:
        u_first = tl.load(m_0_ptr + bh).to(tl.float64)
        fresh = is_fresh(C_0_ptr, n_0_ptr, u_first, bh, K, V).to(tl.int32)
        u_end = tl.where(fresh != 0, u_end, u_first)
        source = tl.where(fresh != 0, T, -1).to(tl.int32)
    episode_end = tl.zeros([], tl.int32)
    tl.store(u_ptr, pack(u_first))
    tl.store(episode_ptr, episode_end)

    for start in range(0, T, BLOCK):
        t = start + tl.arange(0, BLOCK)
        valid = t < T
        step = t.to(tl.int64)
        i = tl.load(i_ptr + step * stride_it, valid, other=0.0).to(tl.float64)
        f = tl.load(f_ptr + step * stride_ft, valid, other=0.0)
        log_f = tl.where(valid, log_forget_gate(f, SIGMOID), 0.0)
        first = (log_f < LEAST_LOG_F).to(tl.int32)
        if reset_ptr is not None:
            first |= tl.load(reset_ptr + step * stride_rt, valid, other=0).to(tl.int32)
        # the sums go on behind it: what forgets all has no part in them, and a NaN, which a reset
        # ends, stays out of them; at a first step inf has nothing to lift
        holds = (first == 0) & ((t > 0) | (fresh == 0))
        broken = (log_f != log_f) | ((log_f == float("inf")) & holds)
        log_f = tl.where(broken | (first != 0) | (log_f == float("inf")), 0.0, log_f)

        b = b_end + tl.cumsum(log_f, 0)
        episode = episode_end + tl.cumsum(first, 0).to(tl.int32)
        c = tl.maximum(i - b, -3e38, propagate_nan=tl.PropagateNan.ALL)
        c = tl.where(valid, tl.where(broken, float("nan"), c), -3e38)
        _, u = tl.associative_scan((episode, c), 0, _latest_max)
        larger = tl.maximum(u, u_end, propagate_nan=tl.PropagateNan.ALL)
        u = tl.where(episode == episode_end, larger, u)

        tl.store(c_ptr + step, pack(c), valid)
        # where still nothing was written m is 0
        tl.store(u_ptr + 1 + step, pack(tl.where(u <= -2e38, -b, u)), valid)
        tl.store(episode_ptr + 1 + step, episode, valid)
        m = tl.where(u <= -2e38, 0.0, b + u).to(tl.float32)
        floor = tl.exp(-tl.minimum(tl.maximum(m, -BOUND), BOUND))
        tl.store(floor_ptr + step, floor, valid)

        at_end = t == tl.minimum(start + BLOCK, T) - 1
        u_new = tl.sum(tl.where(at_end, u, 0.0), 0)
        episode_new = tl.sum(tl.where(at_end, episode, 0), 0)
        # the oldest of equal candidates is the one that the maximum came from
        mine = valid & (episode == episode_new) & (c > -2e38)
        found = tl.min(tl.where(mine & (c == u_new), t, T), 0)
        same = (episode_new == episode_end) & (u_new == u_end)
        source = tl.where(same, source, found)
        b_end = tl.sum(tl.where(at_end, b, 0.0), 0)
        u_end = u_new
        episode_end = episode_new
    tl.store(m_ptr + bh, tl.where(u_end <= -2e38, 0.0, b_end + u_end).to(tl.float32))
    tl.store(source_ptr + bh, source)
