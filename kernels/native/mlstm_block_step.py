"""One step of the whole mLSTM block in one call; acting pays for every microsecond."""

import functools
import operator
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import wants_gradient
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.mlstm.block import MLSTMBlockOptions, MLSTMBlockWeights, State
from xlstm_rl.kernels.native.arguments import bytes_for, run, step_fits, struct
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.mlstm_block import STATE, covers
from xlstm_rl.kernels.native.workspace import own_scratch

Arguments = struct(
    "mlstm_step_arguments",
    "B D I H W S exponential workers",
    " ".join(
        (
            *("x", "reset", *MLSTMBlockWeights._fields),
            *(f"before_{name}" for name in STATE),
            *("out", *(f"after_{name}" for name in STATE), "work"),
        )
    ),
)


class MLSTMBlockStep:
    """Steps of one block, which remembers that its weights have been checked.

    The weights are read where they lie at every step. They are looked at in detail again when one
    of them is another tensor, or has moved.
    """

    def __init__(self) -> None:
        self._weights: tuple[Tensor | None, ...] = ()
        self._pointers: list[int | None] = []
        self._shapes: tuple[tuple[int, ...], ...] = ()
        self._batch = -1

    def __reduce__(self) -> Any:
        return MLSTMBlockStep, ()

    def __call__(
        self,
        x: Tensor,
        reset: Tensor | None,
        state: State | None,
        weights: MLSTMBlockWeights,
        options: MLSTMBlockOptions,
        inplace: bool = False,
    ) -> tuple[Tensor, State] | None:
        """Do what `mlstm_block_step` does, without gradients; ``None``: that has to do it."""
        if (
            options.is_ablated
            or torch.compiler.is_compiling()
            or (torch.is_grad_enabled() and wants_gradient(x, *weights, *(state or ())))
        ):
            return None
        pointers = [None if w is None else w.data_ptr() for w in weights]
        known = pointers == self._pointers and all(map(operator.is_, weights, self._weights))
        B, D = x.shape
        if not (known and self._batch == B):
            if not self._look(x, weights, options):
                return None
            self._weights, self._pointers, self._batch = weights, pointers, B
        if not step_fits(x, reset, state, self._shapes):
            return None
        if reset is not None and not reset.is_contiguous():
            reset = reset.contiguous()
        out = torch.empty_like(x)
        if state is None:
            after = tuple([x.new_empty(s) for s in self._shapes])
        else:
            after = state if inplace else tuple([torch.empty_like(s) for s in state])
        W = 0 if weights.conv is None else weights.conv.shape[1]
        none = () if W else (None,)
        before = (None,) * len(STATE) if state is None else (*none, *state)
        inner, S = weights.skip.shape[0], weights.qkv.shape[1]
        exponential = options.forget_gate == "exponential"
        sizes = (B, D, inner, options.num_heads, W, S, exponential, num_threads())
        states = [None if t is None else t.data_ptr() for t in (*before, out, *none, *after)]
        first = (x.data_ptr(), None if reset is None else reset.data_ptr())
        work = own_scratch(_work(sizes))
        run("xl_mlstm_block_step", Arguments(*sizes, *first, *pointers, *states, work))
        if inplace:
            note_overwritten(after)
        return out, after

    def _look(self, x: Tensor, weights: MLSTMBlockWeights, options: MLSTMBlockOptions) -> bool:
        """Whether C can run on these weights; if so, the shapes of the state are noted."""
        H, inner = options.num_heads, weights.skip.shape[0]
        B, K = x.shape[0], inner // H
        self._shapes = (B, H, K, K), (B, H, K), (B, H)
        if weights.conv is not None:
            self._shapes = ((B, weights.conv.shape[1] - 1, inner), *self._shapes)
        if not covers(x, None, None, weights, H):
            return False
        return all(w is None or w.is_contiguous() for w in weights)


@functools.lru_cache(1024)
def _work(sizes: tuple[int, ...]) -> int:
    return bytes_for("xl_mlstm_block_step_bytes", Arguments(*sizes))
