"""One step of the whole mLSTM block in one call of the library; acting pays for every microsecond."""

import functools

import torch
from torch import Tensor

from xlstm_rl.kernels.autograd import wants_gradient
from xlstm_rl.kernels.inplace import note_overwritten
from xlstm_rl.kernels.mlstm.block import MLSTMBlockOptions, MLSTMBlockWeights, State
from xlstm_rl.kernels.native.arguments import bytes_for, run, struct
from xlstm_rl.kernels.native.library import num_threads
from xlstm_rl.kernels.native.mlstm_block import STATE, covers
from xlstm_rl.kernels.native.workspace import scratch

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


def run_mlstm_block_step(
    x: Tensor,
    reset: Tensor | None,
    state: State | None,
    weights: MLSTMBlockWeights,
    options: MLSTMBlockOptions,
    inplace: bool = False,
) -> tuple[Tensor, State] | None:
    """Do what :func:`mlstm_block_step` does, without gradients; ``None``: that has to do it."""
    tensors = (x, *weights, *(state or ()))
    if torch.compiler.is_compiling() or wants_gradient(*tensors):
        return None
    if not covers(x, reset, state, weights, options.num_heads):
        return None
    for t in tensors:
        if t is not None and not t.is_contiguous():
            return None
    if reset is not None and not reset.is_contiguous():
        reset = reset.contiguous()
    B, D = x.shape
    I, S, H = weights.skip.shape[0], weights.qkv.shape[1], options.num_heads
    W = 0 if weights.conv is None else weights.conv.shape[1]
    out = torch.empty_like(x)
    if inplace and state is not None:
        after = state
    elif state is not None:
        after = tuple([torch.empty_like(s) for s in state])
    else:
        K = I // H
        shapes = [(B, H, K, K), (B, H, K), (B, H)]
        if W:
            shapes.insert(0, (B, W - 1, I))
        after = tuple([x.new_empty(s) for s in shapes])
    none = () if W else (None,)
    pointers = [
        None if t is None else t.data_ptr()
        for t in (
            *(x, reset, *weights, *none, *(state or [None] * len(after))),
            *(out, *none, *after),
        )
    ]
    exponential = options.forget_gate == "exponential"
    sizes = (B, D, I, H, W, S, exponential, num_threads())
    with scratch(_work(sizes)) as work:
        run("xl_mlstm_block_step", Arguments(*sizes, *pointers, work))
    if inplace:
        note_overwritten(after)
    return out, after


@functools.lru_cache(1024)
def _work(sizes: tuple[int, ...]) -> int:
    return bytes_for("xl_mlstm_block_step_bytes", Arguments(*sizes))
