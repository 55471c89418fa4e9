"""One step of the whole sLSTM block in one call; acting pays for every microsecond."""

import operator
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import wants_gradient
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.native.arguments import run, step_fits
from xlstm_rl.kernels.native.slstm_block import (
    STATE,
    Forward,
    covers,
    sizes_of,
    state_shapes,
    work_bytes,
)
from xlstm_rl.kernels.native.workspace import own_scratch
from xlstm_rl.kernels.slstm.block import SLSTMBlockOptions, SLSTMBlockWeights, State


class SLSTMBlockStep:
    """Steps of one block, which remembers that its weights have been checked.

    The weights are read where they lie at every step. They are looked at in detail again when one
    of them is another tensor, or has moved.
    """

    def __init__(self) -> None:
        self._weights: tuple[Tensor | None, ...] = ()
        self._pointers: list[int | None] = []
        self._batch = -1
        self._shapes: tuple[tuple[int, ...], ...] = ()

    def __reduce__(self) -> Any:
        return SLSTMBlockStep, ()

    def __call__(
        self,
        x: Tensor,
        reset: Tensor | None,
        state: State | None,
        weights: SLSTMBlockWeights,
        options: SLSTMBlockOptions,
        inplace: bool = False,
    ) -> tuple[Tensor, State] | None:
        """Do what `slstm_block_step` does, without gradients; ``None``: that has to do it."""
        if (
            options.is_ablated
            or torch.compiler.is_compiling()
            or (torch.is_grad_enabled() and wants_gradient(x, *weights, *(state or ())))
        ):
            return None
        heads, activation, forget_gate, *_ = options
        (B, D), window = x.shape, weights.conv is not None
        pointers = [None if w is None else w.data_ptr() for w in weights]
        known = self._pointers == pointers and all(map(operator.is_, weights, self._weights))
        if not (known and self._batch == B and weights.norm.shape[0] == D):
            if not covers(x, None, None, weights, heads):
                return None
            if not all(w is None or w.is_contiguous() for w in weights):
                return None
            self._weights, self._pointers, self._batch = weights, pointers, B
            self._shapes = state_shapes(x, weights, heads)
        if not step_fits(x, reset, state, self._shapes):
            return None
        reset = None if reset is None else reset.contiguous()
        out = torch.empty_like(x)
        before: tuple[Tensor | None, ...] = (None,) * (len(STATE) - (not window))
        if state is not None:
            before = state
        if state is not None and inplace:
            after = state
        else:
            after = tuple([x.new_empty(shape) for shape in self._shapes])
        none = () if window else (None,)
        others = [
            None if t is None else t.data_ptr()
            for t in (*none, *before, x, out, reset, *none, *after)
        ]
        sizes = sizes_of(B, 1, D, weights, heads, activation, forget_gate)
        work = own_scratch(work_bytes(sizes, False))
        run("xl_slstm_block_forward", Forward(*sizes, *pointers, *others, None, work))
        if inplace:
            note_overwritten(after)
        return out, after
