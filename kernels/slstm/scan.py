"""The sLSTM as a lean loop over time, with its exact backward written by hand.

The recurrence through R leaves no way around the loop, so what counts is the number of operations
per step: everything that does not depend on the step before is done for all steps at once, and
every step writes into its place in buffers laid out beforehand.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels.types import SLSTMState, compute_dtype, exp_bound


class Saved(NamedTuple):
    """What the backward reads again; where there is one step more, the first state leads."""

    gates: Tensor
    """``[T, H, B, 4, D]``: write gate, f (-f for the sigmoid), tanh(z), sigmoid(o)."""
    h: Tensor
    """``[T + 1, H, B, D]``."""
    c: Tensor
    """``[T + 1, H, B, D]``."""
    n: Tensor
    """``[T + 1, H, B, D]``."""
    forget: Tensor
    """``[T, H, B, D]``: forget gate."""
    ratio: Tensor
    """``[T, H, B, D]``: c / n."""


class Grads(NamedTuple):
    """Gradients in the shapes and dtypes of the inputs, those of the state maybe ``None``."""

    x: Tensor
    R: Tensor
    b: Tensor
    h: Tensor | None
    c: Tensor | None
    n: Tensor | None
    m: Tensor | None


def scan_forward(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: SLSTMState | None,
    forget_gate: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Saved]:
    """``h [B, T, H, D]``, the final h, c, n, m and what the backward needs."""
    B, T, _, H, D = x.shape
    dtype, device = compute_dtype(x.dtype), x.device
    raw = torch.empty(T, H, B, 4, D, dtype=dtype, device=device)
    # in the compute dtype: two halves would be added, and rounded, as halves
    torch.add(x.permute(1, 3, 0, 2, 4), b.permute(1, 0, 2)[:, None].to(dtype), out=raw)
    weight = R.permute(1, 2, 0, 3).reshape(H, D, 4 * D).to(dtype, copy=True)
    bound, sigmoid = exp_bound(dtype), forget_gate == "sigmoid"
    if sigmoid:  # log sigmoid(f) = -softplus(-f), which runs on a view without copying it first
        raw[..., 1, :].neg_()
        weight[..., D : 2 * D].neg_()
    if state is None:
        h, c, n, m = torch.zeros(4, H, B, D, dtype=dtype, device=device).unbind(0)
    else:
        h, c, n, m = (s.transpose(0, 1).to(dtype) for s in state)

    outs = raw.view(T, H, B, 4 * D).unbind(0)
    i_, f_, z_, o_ = (g.unbind(0) for g in raw.unbind(3))
    # fresh small tensors, stacked once: writing each into a view of its buffer costs more
    hs, cs, ns, forgets, ratios = [h], [c], [n], [], []
    starts = _starts(reset, T)
    for t in range(T):
        start = starts[t]
        if start is not None:
            h, c, n, m = (x.masked_fill(start, 0) for x in (h, c, n, m))
        if t > 0 or state is not None:
            outs[t].baddbmm_(h, weight)
        i = i_[t]
        forget = m - F.softplus(f_[t], threshold=bound) if sigmoid else f_[t] + m
        if t == 0 or start is not None:  # elsewhere n cannot be 0
            m = torch.where(n == 0, i, torch.maximum(i, forget))
            forget.sub_(m).clamp_(max=bound).exp_()  # inf * 0 is NaN
        else:
            m = torch.maximum(i, forget)
            forget.sub_(m).exp_()
        write, z, o = i.sub_(m).exp_(), z_[t].tanh_(), o_[t].sigmoid_()
        c = (c * forget).addcmul_(write, z)
        n = torch.addcmul(write, n, forget)
        if start is not None:
            forget.masked_fill_(start, 0)  # of what lies before it, which the backward has at hand
        ratio = c / n
        h = ratio * o
        hs.append(h)
        cs.append(c)
        ns.append(n)
        forgets.append(forget)
        ratios.append(ratio)

    h_all = torch.stack(hs)
    y = torch.empty(B, T, H, D, dtype=x.dtype, device=device)
    y.copy_(h_all[1:].permute(2, 0, 1, 3))
    h_T, c_T, n_T, m_T = (
        s.transpose(0, 1).clone(memory_format=torch.contiguous_format) for s in (h, c, n, m)
    )
    stacks = (torch.stack(x) for x in (cs, ns, forgets, ratios))
    return y, h_T, c_T, n_T, m_T, Saved(raw, h_all, *stacks)


def scan_backward(
    dy: Tensor | None,
    dh: Tensor | None,
    dc: Tensor | None,
    dn: Tensor | None,
    dm: Tensor | None,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    saved: Saved,
    forget_gate: str,
    dtype: torch.dtype,
    has_state: bool,
) -> Grads:
    """The gradients of every input; a ``None`` among the incoming ones is zero.

    With m held fixed, every step is linear in the gradients of h, c and n: its coefficients are
    made for all steps at once. What is left for m itself is not zero only if a loss touches the
    final state, and then it is known beforehand too (`_through_maximum`).
    """
    gates, hs, c, n, forget, ratio = saved
    T, H, B, _, D = gates.shape
    memory = gates.new_zeros(2, H, B, D)  # gradients of c and n
    for g, into in zip((dc, dn), memory.unbind(0), strict=True):
        if g is not None:
            into.copy_(g.transpose(0, 1))
    dhs = torch.zeros_like(ratio) if dy is None else _time_first(dy, ratio)
    if dh is not None:
        dhs[-1].add_(dh.transpose(0, 1))
    extra, rest = None, None
    if dc is not None or dn is not None or dm is not None:
        extra, rest = _through_maximum(saved, memory, dm, forget_gate)
    c_old, n_old = c[:-1], n[:-1]
    if reset is not None:  # filled, not multiplied by a forget gate of 0: inf * 0 is NaN
        starting = reset.t()[:, None, :, None]
        c_old, n_old = c_old.masked_fill(starting, 0), n_old.masked_fill(starting, 0)

    weight = R.permute(1, 0, 3, 2).reshape(H, 4 * D, D).to(gates.dtype)
    draw = torch.empty_like(gates)
    flat = draw.view(T, H, B, 4 * D).unbind(0)
    d_ifz, d_if = draw[..., :3, :].unbind(0), draw[..., :2, :].unbind(0)
    d_o, forgets = draw[..., 3, :].unbind(0), forget.unbind(0)
    to_c, to_n, to_h, from_h = (
        s.unbind(0) for s in _coefficients(saved, c_old, n_old, forget_gate)
    )
    c_, n_ = memory[0].unsqueeze(2), memory[1].unsqueeze(2)
    extras = None if extra is None else extra.unbind(0)
    each, starts = dhs.unbind(0), _starts(reset, T)
    for t in range(T - 1, -1, -1):
        dh_t = each[t]
        memory.addcmul_(from_h[t], dh_t)
        torch.mul(to_c[t], c_, out=d_ifz[t])
        d_if[t].addcmul_(to_n[t], n_)
        if extras is not None:
            d_if[t].add_(extras[t])
        torch.mul(to_h[t], dh_t, out=d_o[t])
        memory.mul_(forgets[t])
        start = starts[t]
        if start is not None:
            memory.masked_fill_(start, 0)
        if t == 0:
            break
        if start is None:
            each[t - 1].baddbmm_(flat[t], weight)
        else:
            each[t - 1].add_(torch.bmm(flat[t], weight).masked_fill_(start, 0))

    dx = torch.empty(B, T, 4, H, D, dtype=dtype, device=gates.device)
    dx.copy_(draw.permute(2, 0, 3, 1, 4))
    dR, db = _weight_grads(hs[:-1], draw, reset)
    state: list[Tensor | None] = [None] * 4
    if has_state:
        dh_0 = torch.bmm(flat[0], weight)
        if starts[0] is not None:
            dh_0.masked_fill_(starts[0], 0)
        dm_0 = c_old[0] * memory[0] + n_old[0] * memory[1]
        dm_0 = dm_0 if rest is None else dm_0 + rest
        # copies also with one head: an op's outputs may not share memory
        state = [
            s.transpose(0, 1).clone(memory_format=torch.contiguous_format)
            for s in (dh_0, memory[0], memory[1], dm_0)
        ]
    return Grads(dx, dR.to(R.dtype), db.to(b.dtype), *state)


def _coefficients(
    saved: Saved, c_old: Tensor, n_old: Tensor, forget_gate: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a step's gradients are multiplied by, for all steps; c_old, n_old are from before each.

    From dc to those of i, f, z ``[T, H, B, 3, D]``; from dn to those of i, f ``[T, H, B, 2, D]``;
    from dh to that of o ``[T, H, B, D]``; and from dh to dc, dn ``[T, 2, H, B, D]``.
    """
    gates, _, _, n, forget, ratio = saved
    T, H, B, _, D = gates.shape
    write, f, z, o = gates.unbind(3)
    through_f = forget * torch.sigmoid(f) if forget_gate == "sigmoid" else forget
    to_c, to_n = gates.new_empty(T, H, B, 3, D), gates.new_empty(T, H, B, 2, D)
    written = torch.mul(write, z, out=to_c[..., 0, :])
    torch.mul(through_f, c_old, out=to_c[..., 1, :])
    torch.addcmul(write, written, z, value=-1, out=to_c[..., 2, :])  # write (1 - z^2)
    to_n[..., 0, :] = write
    torch.mul(through_f, n_old, out=to_n[..., 1, :])
    h = ratio * o
    to_h = torch.addcmul(h, h, o, value=-1)  # h (1 - o)
    from_h = gates.new_empty(T, 2, H, B, D)
    torch.div(o, n[1:], out=from_h[:, 0])
    torch.mul(from_h[:, 0], ratio, out=from_h[:, 1]).neg_()
    return to_c, to_n, to_h, from_h


def _through_maximum(
    saved: Saved, memory: Tensor, dm: Tensor | None, forget_gate: str
) -> tuple[Tensor, Tensor]:
    """The gradient of the final m on its way down the maxima.

    c and n are ``exp(-m)`` times something without m, and h has no m at all. So the final m's
    own gradient is ``dm - c dc - n dn``, and it follows, at every step, the larger of i and
    m' + log f: it ends at an i, or at the first m. On a tie it goes on to m'.

    Returns:
        Additions to the gradients of i and f ``[T, H, B, 2, D]``, and to that of the first m.
    """
    gates, _, c, n, forget, _ = saved
    own = -(c[-1] * memory[0] + n[-1] * memory[1])
    if dm is not None:
        own += dm.transpose(0, 1)
    goes_on = (forget == 1) & (n[:-1] != 0)  # forget = 1: m is m' + log f
    # passed[t], comes[t]: whether it leaves step t for the one before, whether it comes there
    passed = goes_on.flip(0).cumprod(0).flip(0) != 0
    comes = torch.cat([passed[1:], torch.ones_like(passed[:1])])
    extra = gates.new_empty(*gates.shape[:3], 2, gates.shape[-1])
    extra[..., 0, :] = torch.where(comes & ~passed, own, 0)
    extra[..., 1, :] = torch.where(passed, own, 0)
    if forget_gate == "sigmoid":
        extra[..., 1, :].mul_(torch.sigmoid(gates[..., 1, :]))
    return extra, torch.where(passed[0], own, 0)


def _weight_grads(h: Tensor, draw: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """Gradients of R and b: one product over all steps and environments."""
    T, H, B, _, D = draw.shape
    if reset is not None:
        h = h.masked_fill(reset.t()[:, None, :, None], 0)
    seen = h.transpose(0, 1).reshape(H, T * B, D)
    flat = draw.transpose(0, 1).reshape(H, T * B, 4 * D)
    dR = torch.bmm(seen.mT, flat).view(H, D, 4, D).permute(2, 0, 1, 3).contiguous()
    return dR, flat.sum(1).view(H, 4, D).transpose(0, 1).contiguous()


def _starts(reset: Tensor | None, T: int) -> list[Tensor | None]:
    """Per step the mask ``[B, 1]`` of rows that start afresh, ``None`` where no row does."""
    if reset is None:
        return [None] * T
    masks = reset.t()[..., None].unbind(0)
    return [m if any_ else None for m, any_ in zip(masks, reset.any(0).tolist(), strict=True)]


def _time_first(dy: Tensor, like: Tensor) -> Tensor:
    """``[B, T, H, D]`` as a fresh ``[T, H, B, D]`` in the compute dtype."""
    return torch.empty_like(like).copy_(dy.permute(1, 2, 0, 3))
