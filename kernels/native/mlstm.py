"""The mLSTM cell in the library: sequences, forward and backward, and steps."""

from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import Grads, differentiable, keep, pull_back, wants_gradient
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.mlstm import reference
from xlstm_rl.kernels.mlstm.ops import NUM_TENSORS, equations
from xlstm_rl.kernels.native.arguments import bytes_for, contiguous, pointer, run, struct
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.workspace import lend_tensor, scratch
from xlstm_rl.kernels.types import MLSTMState

_Arguments = struct(
    "mlstm_arguments",
    "B T H K V exponential workers",
    "q k v i f reset C n m h C_1 n_1 m_1 dh dC_1 dn_1 dm_1 dq dk dv di df dC dn dm saved work",
)


class _NotFiniteError(Exception):
    """A result is not finite: what then stays where, the reference knows."""


def mlstm(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: MLSTMState | None,
    chunk_size: int,
    forget_gate: str,
) -> tuple[Tensor, MLSTMState] | None:
    """The whole sequence, in chunks of a length of its own; ``None``: something is not finite."""
    C_0, n_0, m_0 = (None, None, None) if state is None else state
    inputs = (q, k, v, i, f, reset, C_0, n_0, m_0, chunk_size, forget_gate)
    try:
        if wants_gradient(*inputs):
            h, *after = _Cell.apply(*inputs)  # type: ignore[no-untyped-call]
        else:
            (h, *after), _ = _forward(inputs)
    except _NotFiniteError:
        return None
    return h, tuple(after)


def mlstm_step(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    i: Tensor,
    f: Tensor,
    reset: Tensor | None,
    state: MLSTMState | None,
    forget_gate: str,
    inplace: bool,
) -> tuple[Tensor, MLSTMState]:
    """One step; with gradients it is the reference's, differentiated by autograd."""
    if wants_gradient(q, k, v, i, f, *(state or ())):
        return reference.mlstm_step(q, k, v, i, f, reset, state, forget_gate)
    (B, H, K), V = q.shape, v.shape[-1]
    held = [contiguous(t) for t in (q, k, v, i, f, reset, *(state or (None,) * 3))]
    h, after = v.new_empty(B, H, V), _new_state(q, B, H, K, V)
    into = inplace and state is not None and all(map(Tensor.is_contiguous, state))
    if into and state is not None:
        after = state
    sizes = (B, 0, H, K, V, forget_gate == "exponential", 1)
    run("xl_mlstm_step", _Arguments(*sizes, *map(pointer, (*held, h, *after))))
    if into:
        note_overwritten(after)
    elif inplace and state is not None:
        C, n, m = (s.copy_(a) for s, a in zip(state, after, strict=True))
        after = C, n, m
    return h, after


class _Cell(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        outputs, saved = _forward(inputs)
        keep(ctx, inputs, NUM_TENSORS, outputs[0], saved)
        return outputs

    @staticmethod
    @differentiable(equations, NUM_TENSORS)
    def backward(ctx: Any, inputs: Grads, rest: Any, *grads: Tensor | None) -> Grads:
        h, saved = rest
        found = _backward((*inputs, *ctx.options), h, saved, grads)
        if found is None:
            found = pull_back(equations, ctx.options, inputs, grads)
        return *found, *(None,) * len(ctx.options)


def _forward(inputs: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], Tensor]:
    """``h``, the state behind it and what the backward needs."""
    sizes, held = _sizes(inputs)
    B, T, H, K, V = sizes[:5]
    q = inputs[0]
    outputs = (q.new_empty(B, T, H, V), *_new_state(q, B, H, K, V))
    arguments = _Arguments(*sizes, *map(pointer, (*held, *outputs)))
    saved = lend_tensor(bytes_for("xl_mlstm_saved_bytes", arguments))
    arguments.saved = saved.data_ptr()
    if _run("xl_mlstm_forward", arguments):
        raise _NotFiniteError
    return outputs, saved


def _backward(inputs: tuple[Any, ...], h: Tensor, saved: Tensor, grads: Any) -> Grads | None:
    """The gradients of all inputs; ``None`` where one of them is not finite."""
    sizes, held = _sizes(inputs)
    wanted = (
        [True] * 5 + [False] + [any(t is not None and t.requires_grad for t in inputs[6:9])] * 3
    )
    found = [
        torch.empty_like(t) if wish and t is not None else None
        for wish, t in zip(wanted, held, strict=True)
    ]
    found.pop(5)  # of reset
    given = (*held, h, None, None, None, *map(contiguous, grads), *found)
    arguments = _Arguments(*sizes, *map(pointer, given))
    arguments.saved = saved.data_ptr()
    if _run("xl_mlstm_backward", arguments):
        return None
    return *found[:5], None, *found[5:]


def _run(name: str, arguments: Any) -> int:
    with scratch(bytes_for("xl_mlstm_work_bytes", arguments)) as work:
        arguments.work = work
        return run(name, arguments)


def _sizes(inputs: tuple[Any, ...]) -> tuple[tuple[int, ...], list[Tensor | None]]:
    """The sizes as C takes them, and the contiguous tensors that have to outlive the call."""
    held = [contiguous(t) for t in inputs[:NUM_TENSORS]]
    sizes = (*inputs[0].shape, inputs[2].shape[-1], inputs[-1] == "exponential", num_threads())
    return sizes, held


def _new_state(q: Tensor, B: int, H: int, K: int, V: int) -> MLSTMState:
    return q.new_empty(B, H, K, V), q.new_empty(B, H, K), q.new_empty(B, H)
