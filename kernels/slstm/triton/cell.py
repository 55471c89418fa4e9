"""One step of the sLSTM on tiles ``[rows, D]`` in float32, as the kernels share it."""

import triton
import triton.language as tl


@triton.jit
def sigmoid(v):
    """Of any tile; the exponential is of a number <= 0, so that it cannot overflow."""
    e = tl.exp(-tl.abs(v))
    return tl.where(v >= 0, 1.0, e) / (1.0 + e)


@triton.jit
def tanh(v):
    """Of any tile; a series near 0, where the quotient would cancel."""
    e = tl.exp(-2.0 * tl.abs(v))
    far = (1.0 - e) / (1.0 + e)
    v2 = v * v
    near = v * (1.0 + v2 * (-0.333333333 + v2 * (0.133333333 - v2 * 0.0539682540)))
    return tl.where(v2 < 0.0625, near, tl.where(v < 0, -far, far))


@triton.jit
def log_sigmoid(v):
    """Of any tile: ``min(v, 0) - log(1 + e)``, the logarithm as ``2 atanh(e / (2 + e))``.

    ``e / (2 + e)`` is at most 1/3, where six terms of the series are exact in float32.
    """
    e = tl.exp(-tl.abs(v))
    s = e / (2.0 + e)
    s2 = s * s
    series = 0.111111111 + s2 * (0.0909090909 + s2 * 0.0769230769)
    series = 1.0 + s2 * (0.333333333 + s2 * (0.2 + s2 * (0.142857143 + s2 * series)))
    return tl.minimum(v, 0.0) - 2.0 * s * series


@triton.jit
def gates_from(ahead, first, EXP_BOUND: tl.constexpr):
    """Write and forget gate from ``ahead = i - (m' + log f)`` and ``first``: where n' = 0.

    The larger of the two is 1, and the other one exponential. Where n' = 0 it is the write gate
    that is 1, and the forget gate may be above 1; there ``inf * 0`` would be no number, so its
    exponent is bounded.
    """
    new = first | (ahead > 0.0)
    larger = tl.minimum(-ahead, EXP_BOUND, propagate_nan=tl.PropagateNan.ALL)
    e = tl.exp(tl.where(first, larger, -tl.abs(ahead)))
    return tl.where(new, 1.0, e), tl.where(new, e, 1.0)


@triton.jit
def advance(i, f, z, o, c, n, m, SIGMOID: tl.constexpr, EXP_BOUND: tl.constexpr):
    """``ahead``, h, c, n and m after a step with the pre-activations i, f, z, o."""
    log_forget = m + (log_sigmoid(f) if SIGMOID else f)
    ahead = i - log_forget
    first = n == 0.0
    m = tl.where(first, i, tl.maximum(i, log_forget, propagate_nan=tl.PropagateNan.ALL))
    # the exponentials of inf - inf are NaN
    ahead = tl.where(tl.abs(m) == float("inf"), float("nan"), ahead)
    write, forget = gates_from(ahead, first, EXP_BOUND)
    c = forget * c + write * tanh(z)
    n = forget * n + write
    e = tl.exp(-tl.abs(o))
    h = tl.where(o >= 0, 1.0, e) * c / ((1.0 + e) * n)  # sigmoid(o) c / n, divided once
    return ahead, h, c, n, m


@triton.jit
def retreat(
    ahead,
    f,
    z,
    o,
    c,
    n,
    c_1,
    n_1,
    dh,
    dc,
    dn,
    own,
    HAS_OWN: tl.constexpr,
    SIGMOID: tl.constexpr,
    EXP_BOUND: tl.constexpr,
):
    """Gradients of i, f, z, o and of the c, n before the step, and ``own`` there.

    c, n are from before the step, c_1, n_1 from after it; dh, dc, dn are the gradients of what it
    handed on. ``own = dm - c dc - n dn`` is the gradient of m itself: c and n are exp(-m) times
    something without m, and h has no m. It goes whole to the one that m was taken from.
    """
    first = n == 0.0
    write, forget = gates_from(ahead, first, EXP_BOUND)
    z, o = tanh(z), sigmoid(o)
    over = 1.0 / n_1
    ratio = c_1 * over
    dc += dh * (o * over)
    dn -= dh * (o * over) * ratio
    di = write * (z * dc + dn)
    df = forget * (c * dc + n * dn)
    if HAS_OWN:
        new = first | (ahead > 0.0)
        di += tl.where(new, own, 0.0)
        own = tl.where(new, 0.0, own)
        df += own
    if SIGMOID:
        df *= sigmoid(-f)
    dz = write * dc * (1.0 - z * z)
    do = dh * ratio * o * (1.0 - o)
    return di, df, dz, do, forget * dc, forget * dn, own
