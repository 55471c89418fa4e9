"""The cells with a part of them taken away, to see what that part is worth.

Two parts can be: the exponential input gate, in whose place a sigmoid stands (``exp(i)`` becomes
``sigmoid(i)``), and the normaliser, with which the stabiliser goes. Without a normaliser an mLSTM
is gated linear attention, ``h = C^T q``, and an sLSTM reads out as an LSTM does,
``h = sigmoid(o) tanh(c)``; with a sigmoid input gate as well it is an LSTM whose recurrent weights
are block-diagonal. A state has no n and m then.

Nothing is scaled then: what overflows in these equations overflows here, values and gradients
alike.

What remains of the mLSTM runs on the kernels that are there, but step by step where an exponential
forget gate is above 1; the sLSTM runs step by step.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xlstm_rl.kernels import dispatch
from xlstm_rl.kernels.autograd import transforming
from xlstm_rl.kernels.linear import chunkwise as linear_chunkwise
from xlstm_rl.kernels.linear import reference as linear_reference
from xlstm_rl.kernels.slstm import reference as slstm_reference
from xlstm_rl.kernels.types import all_finite, compute_dtype, exp_bound

State = tuple[Tensor, ...]


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: State | None,
    chunk_size: int,
    forget_gate: str,
    input_gate: str,
    normalizer: bool,
    backend: str,
) -> tuple[Tensor, State]:
    """Run the mLSTM over whole sequences.

    Arguments are those of `xlstm_rl.kernels.mlstm`; ``input_gate`` is ``"exponential"`` or
    ``"sigmoid"``, and without a ``normalizer`` the state is ``(C,)``.
    """
    i = _log_input(i, input_gate)
    if normalizer:
        before: Any = state
        return dispatch.mlstm(q, k, v, i, f, reset, before, chunk_size, forget_gate, backend)
    inputs, C = _linear_inputs(q, k, v, i, f, state, forget_gate)
    if backend == "reference" or transforming() or not _fits_chunks(inputs, C, forget_gate):
        h, C = linear_reference.gated_linear(*inputs, reset, C)
    else:
        h, C = linear_chunkwise.gated_linear(*inputs, reset, C, chunk_size=chunk_size)
    return h.to(v.dtype), (C,)


def mlstm_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: State | None,
    forget_gate: str,
    input_gate: str,
    normalizer: bool,
    backend: str,
    inplace: bool,
) -> tuple[Tensor, State]:
    """Run one step: `mlstm` without the time axis."""
    i = _log_input(i, input_gate)
    if normalizer:
        before: Any = state
        return dispatch.mlstm_step(q, k, v, i, f, reset, before, forget_gate, backend, inplace)
    inputs, C = _linear_inputs(q, k, v, i, f, state, forget_gate)
    if reset is not None:
        C = C.masked_fill(reset[:, None, None, None], 0.0)
    h, C = linear_reference.gated_linear_step(*inputs, None, C)
    return h.to(v.dtype), _into(state if inplace else None, (C,))


def slstm(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: State | None,
    forget_gate: str,
    input_gate: str,
    normalizer: bool,
) -> tuple[Tensor, State]:
    """Run the sLSTM over whole sequences.

    Arguments are those of `xlstm_rl.kernels.slstm`; ``input_gate`` is ``"exponential"`` or
    ``"sigmoid"``, and without a ``normalizer`` the state is ``(h, c)``.
    """
    outputs = []
    for t in range(x.shape[1]):
        now = None if reset is None else reset[:, t]
        h, state = slstm_step(x[:, t], R, b, now, state, forget_gate, input_gate, normalizer)
        outputs.append(h)
    assert state is not None  # T >= 1
    return torch.stack(outputs, 1), state


def slstm_step(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: State | None,
    forget_gate: str,
    input_gate: str,
    normalizer: bool,
    inplace: bool = False,
) -> tuple[Tensor, State]:
    """Run one step: `slstm` without the time axis."""
    run: Callable[..., tuple[Tensor, State]] = _slstm_step_without_normalizer
    if normalizer:
        run = slstm_reference.slstm_step
    h, after = run(x, R, b, reset, state, forget_gate, input_gate)
    return h, _into(state if inplace else None, after)


def _slstm_step_without_normalizer(
    x: Tensor,
    R: Tensor,
    b: Tensor,
    reset: Tensor | None,
    state: State | None,
    forget_gate: str,
    input_gate: str,
) -> tuple[Tensor, State]:
    out_dtype, dtype = x.dtype, compute_dtype(x.dtype)
    x, R, b = x.to(dtype), R.to(dtype), b.to(dtype)
    if state is None:
        h = c = x.new_zeros(x.shape[0], *x.shape[2:])
    else:
        h, c = (s.to(dtype) for s in state)
    if reset is not None:
        h, c = (s.masked_fill(reset[:, None, None], 0.0) for s in (h, c))
    i, f, z, o = slstm_reference.mixed(x, R, b, h).unbind(1)
    forget = torch.sigmoid(f) if forget_gate == "sigmoid" else torch.exp(f)
    write = torch.exp(_log_input(i, input_gate).clamp(max=exp_bound(dtype)))
    c = forget * c + write * torch.tanh(z)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h.to(out_dtype), (h, c)


def _log_input(i: Tensor, input_gate: str) -> Tensor:
    return F.logsigmoid(i) if input_gate == "sigmoid" else i


def _linear_inputs(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    log_i: Tensor,
    f: Tensor,
    state: State | None,
    forget_gate: str,
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return queries, keys, values and log decays of a linear recurrence, and its state."""
    dtype = compute_dtype(v.dtype)
    q, k, v, log_i, f = (x.to(dtype) for x in (q, k, v, log_i, f))
    write = torch.exp(log_i.clamp(max=exp_bound(dtype)))
    log_f = F.logsigmoid(f) if forget_gate == "sigmoid" else f
    fresh = (k.shape[0], *k.shape[-2:], v.shape[-1])
    C = k.new_zeros(fresh) if state is None else state[0].to(dtype)
    return (q * q.shape[-1] ** -0.5, k * write[..., None], v, log_f[..., None]), C


def _fits_chunks(inputs: tuple[Tensor, ...], C: Tensor, forget_gate: str) -> bool:
    """Return whether products over chunks are right: of finite numbers, and decays that decay.

    They would multiply what is not finite by zero, and so spread it; and a chunk's decays are taken
    together, which may overflow where a step by itself does not.
    """
    grows = forget_gate == "exponential"
    if torch.compiler.is_compiling():
        return not grows
    if grows and bool((inputs[3].detach() > 0).any()):
        return False
    return all_finite(*(x.detach() for x in (*inputs, C)))


def _into(state: State | None, after: State) -> State:
    """Write the state after a step over the one before, where there is one to overwrite."""
    if state is None:
        return after
    return tuple(old.copy_(new) for old, new in zip(state, after, strict=True))
