"""One step of the whole sLSTM block in one call; acting pays for every microsecond."""

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import wants_gradient
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.library import call
from xlstm_rl.kernels.native.slstm_block import (
    STATE,
    Forward,
    covers,
    loaded,
    sizes_of,
    work_size,
)
from xlstm_rl.kernels.native.workspace import scratch
from xlstm_rl.kernels.slstm.block import SLSTMBlockOptions, SLSTMBlockWeights, State


def run_slstm_block_step(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: SLSTMBlockWeights,
    options: SLSTMBlockOptions,
    inplace: bool = False,
) -> tuple[Tensor, State] | None:
    """Do what :func:`slstm_block_step` does, without gradients; ``None``: that has to do it."""
    tensors = (x, *weights, *(state or ()))
    if torch.compiler.is_compiling() or wants_gradient(*tensors):
        return None
    if not covers(x, reset, state, weights, options.num_heads):
        return None
    for t in tensors:
        if t is not None and not t.is_contiguous():
            return None
    B, D = x.shape
    heads, activation, forget_gate, _ = options
    window = weights.conv is not None
    out = torch.empty_like(x)
    if inplace and state is not None:
        after = state
    else:
        after = tuple([x.new_empty(B, heads, D // heads) for _ in range(4)])
        if window:
            after = (x.new_empty(B, weights.conv.shape[1] - 1, D), *after)  # type: ignore[union-attr]
    none = () if window else (None,)
    before = (*none, *state) if state is not None else (None,) * len(STATE)
    reset = None if reset is None else reset.contiguous()
    pointers = [
        None if t is None else t.data_ptr()
        for t in (*weights, *before, x, out, reset, *none, *after, None)
    ]
    sizes = sizes_of(B, 1, D, weights, heads, activation, forget_gate)
    with scratch(work_size(sizes, False)) as work:
        call(loaded().xl_slstm_block_forward, Forward(*sizes, *pointers, work))
    if inplace:
        note_overwritten(after)
    return out, after
