"""Sequences in which something is not finite: run again as the definition has it.

A product over a chunk multiplies what a step does not see by a weight of 0, and 0 times what is
not finite is NaN: so a NaN reaches steps before it and behind the next reset. Masks would cost
every finite sequence its time; one look at two small sums does not.
"""

from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.mlstm import reference
from xlstm_rl.kernels.types import MLSTMState, all_finite


def find_broken(*xs: Tensor) -> Tensor | None:
    """The indices of sequences with something not finite in ``[N, B, ...]``, ``None`` for none."""
    if all_finite(*xs):
        return None
    sums = sum(x.transpose(0, 1).flatten(1).sum(1) for x in xs)
    assert isinstance(sums, Tensor)
    rows = (~sums.isfinite()).nonzero().squeeze(1)
    return rows if len(rows) > 0 else None


def run_again(
    rows: Tensor,
    inputs: tuple[Tensor, ...],
    reset: Tensor | None,
    state: MLSTMState | None,
    forget_gate: str,
    outputs: tuple[Tensor, ...],
) -> None:
    """Write the sequences ``rows`` of h, C, n and m into ``outputs``."""
    q, k, v, i, f, reset, state = _take(rows, inputs, reset, state)
    h, after = reference.mlstm(q, k, v, i, f, reset, state, forget_gate)
    for out, x in zip(outputs, (h, *after), strict=True):
        out[rows] = x.to(out.dtype)


def differentiate_again(
    rows: Tensor,
    inputs: tuple[Tensor, ...],
    reset: Tensor | None,
    state: MLSTMState | None,
    forget_gate: str,
    incoming: tuple[Tensor | None, ...],
    grads: tuple[Tensor, ...],
) -> None:
    """Write the gradients of q, k, v, i, f and of the state, if there is one, into ``grads``.

    ``incoming`` are those of h, C, n and m; ``None`` is zero.
    """
    *taken, reset, state = _take(rows, inputs, reset, state)
    leaves = [x.detach().requires_grad_() for x in (*taken, *(state or ()))]
    q, k, v, i, f, *rest = leaves
    first: Any = tuple(rest) or None
    with torch.enable_grad():
        h, after = reference.mlstm(q, k, v, i, f, reset, first, forget_gate)
        pairs = zip((h, *after), incoming, strict=True)
        outs = [(x, g[rows].to(x.dtype)) for x, g in pairs if g is not None]
        found = torch.autograd.grad(
            [x for x, _ in outs],
            leaves,
            [g for _, g in outs],
            allow_unused=True,
            materialize_grads=True,
        )
    for grad, x in zip(grads, found, strict=True):
        grad[rows] = x.to(grad.dtype)


def _take(
    rows: Tensor, inputs: tuple[Tensor, ...], reset: Tensor | None, state: MLSTMState | None
) -> tuple[Any, ...]:
    reset = None if reset is None else reset[rows]
    state = None if state is None else (state[0][rows], state[1][rows], state[2][rows])
    return *(x[rows] for x in inputs), reset, state
