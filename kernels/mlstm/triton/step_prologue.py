"""What a step of the mLSTM begins with, forward and backward: gates, normaliser, arguments."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from xlstm_rl.kernels.mlstm.triton.gates import is_fresh, log_forget_gate
from xlstm_rl.kernels.mlstm.triton.tiles import pad
from xlstm_rl.kernels.types import LEAST_LOG_FORGET, exp_bound


def step_inputs(
    q: Tensor, k: Tensor, v: Tensor, i: Tensor, f: Tensor, reset: Tensor | None
) -> dict[str, object]:
    """Return the arguments of a kernel that are the inputs of a step."""
    arguments: dict[str, object] = {}
    for name, x in (("q", q), ("k", k), ("v", v), ("i", i), ("f", f)):
        if name in "qkv" and x.stride(-1) != 1:
            x = x.contiguous()
        arguments |= {f"{name}_ptr": x, f"stride_{name}b": x.stride(0)}
        arguments[f"stride_{name}h"] = x.stride(1)
    reset = None if reset is None else reset.contiguous()
    return arguments | {"reset_ptr": reset}


def step_sizes(q: Tensor, v: Tensor, forget_gate: str) -> dict[str, object]:
    """Return the arguments of a kernel that are sizes, constants and tiles."""
    (_, H, K), V = q.shape, v.shape[-1]
    block_k = pad(K)
    return {
        "H": H,
        "K": K,
        "V": V,
        "scale": K**-0.5,
        "SIGMOID": forget_gate == "sigmoid",
        "LEAST_LOG_F": LEAST_LOG_FORGET,
        "BOUND": exp_bound(torch.float32),
        "BLOCK_K": block_k,
        "BLOCK_V": min(pad(V), max(8, 2048 // block_k)),
        "num_warps": 4 if block_k * V >= 1024 else 1,
    }


@triton.jit
def _gates(
    i_ptr,
    f_ptr,
    reset_ptr,
    C_ptr,
    n_ptr,
    m_ptr,
    bh,
    batch,
    K,
    V,
    SIGMOID: tl.constexpr,
    LEAST_LOG_F: tl.constexpr,
    BOUND: tl.constexpr,
):
    """Return f, whether the step is a first, the weights of state and input, m and its source.

    The source is 1 where m comes from the state's, -1 from the input gate, 0 from neither.
    """
    i = tl.load(i_ptr).to(tl.float64)
    f = tl.load(f_ptr)
    log_f = log_forget_gate(f, SIGMOID)
    first = log_f < LEAST_LOG_F  # forgets all, as a reset does
    if reset_ptr is not None:
        first = first | (tl.load(reset_ptr + batch) != 0)
    m = tl.zeros([], tl.float64)
    nothing = True
    if m_ptr is not None:
        m += tl.load(m_ptr + bh).to(tl.float64)
        nothing = is_fresh(C_ptr, n_ptr, m, bh, K, V)
    m = tl.where(first, 0.0, m)
    # what holds nothing has no say in m; the least number stands for -inf
    log_old = tl.where((first | nothing) & (log_f == log_f), -3e38, m + log_f)
    older = log_old >= i
    m_new = tl.where(older, log_old, tl.maximum(log_old, i, propagate_nan=tl.PropagateNan.ALL))
    empty = m_new <= -2e38
    source = tl.where(empty, 0, tl.where(older, 1, -1))
    m_new = tl.where(empty, 0.0, m_new)
    # above 0 only where there is nothing to forget; inf * 0 is NaN
    log = tl.minimum(m + log_f - m_new, BOUND, propagate_nan=tl.PropagateNan.ALL)
    forget = tl.exp(log.to(tl.float32))
    write = tl.exp((i - m_new).to(tl.float32))
    return f.to(tl.float32), first, forget, write, m_new.to(tl.float32), source


@triton.jit
def begin_step(
    q_ptr,  # of this head: [K]
    k_ptr,  # of this head: [K]
    i_ptr,  # of this head
    f_ptr,  # of this head
    reset_ptr,
    C_ptr,
    n_ptr,
    m_ptr,
    bh,
    batch,
    K,
    V,
    scale,
    SIGMOID: tl.constexpr,
    LEAST_LOG_F: tl.constexpr,
    BOUND: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Return all of a step that is no matrix, in float32.

    f, whether the step is a first, the weights of state and input, m and its source (as in
    `_gates`); q times its scale, k, the old n (0 in a first step), the new n, their
    product with q and the least denominator.
    """
    f, first, forget, write, m, source = _gates(
        i_ptr,
        f_ptr,
        reset_ptr,
        C_ptr,
        n_ptr,
        m_ptr,
        bh,
        batch,
        K,
        V,
        SIGMOID,
        LEAST_LOG_F,
        BOUND,
    )
    kd = tl.arange(0, BLOCK_K)
    q = tl.load(q_ptr + kd, kd < K, other=0.0).to(tl.float32) * scale
    k = tl.load(k_ptr + kd, kd < K, other=0.0).to(tl.float32)
    old = tl.zeros([BLOCK_K], tl.float32)
    n = k * write
    if n_ptr is not None:
        old += tl.load(n_ptr + bh * K + kd, kd < K, other=0.0).to(tl.float32)
        n += tl.where(first, 0.0, old * forget)
        old = tl.where(first, 0.0, old)
    floor = tl.exp(-tl.minimum(tl.maximum(m, -BOUND), BOUND))
    return f, first, forget, write, m, source, q, k, old, n, tl.sum(q * n, 0), floor
