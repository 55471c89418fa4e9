"""cuDNN's LSTM and GRU with products in float32.

By torch's default cuDNN rounds the factors of a float32 LSTM or GRU to TF32, ten bits, while the
cell of a single step multiplies in float32. Then a sequence differs from its steps by some 3e-4
(measured on an H200), and what is trained is not what acted. So both directions run without TF32,
unless torch was told that it will do for products
(`torch.set_float32_matmul_precision("high")`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from xlstm_rl.kernels.launch import tf32_will_do
from xlstm_rl.memory.base import StateTensors

Network = Callable[[Tensor, StateTensors], tuple[Tensor, StateTensors]]


def run_in_float32(network: Network, x: Tensor, state: StateTensors) -> tuple[Tensor, StateTensors]:
    """Run `network` on x [B, T, D] and its state so that cuDNN multiplies float32 as float32."""
    if not x.is_cuda or torch.compiler.is_compiling() or tf32_will_do():
        return network(x, state)
    with without_tf32():
        y, after = network(x, state)
    keep_backward_in_float32(y)
    return y, after


@contextmanager
def without_tf32() -> Iterator[None]:
    """Forbid cuDNN TF32 inside. Where a precision of its own was set for RNNs, that one holds."""
    cudnn = torch.backends.cudnn
    try:
        before = cudnn.allow_tf32
    except RuntimeError:  # torch 2.9 and later: RNNs and convolutions were told different things
        before = False
    if before:
        cudnn.allow_tf32 = False
    try:
        yield
    finally:
        if before:
            cudnn.allow_tf32 = True


def keep_backward_in_float32(y: Tensor, name: str = "CudnnRnnBackward") -> None:
    """Let the node of that name behind y run its backward inside `without_tf32`."""
    node = y.grad_fn
    while node is not None and not node.name().startswith(name):
        node = node.next_functions[0][0] if node.next_functions else None
    if node is None:
        return
    entered: list[Any] = []

    def enter(_: Any) -> None:
        entered.append(without_tf32())
        entered[-1].__enter__()

    def leave(*_: Any) -> None:
        entered.pop().__exit__(None, None, None)

    node.register_prehook(enter)
    node.register_hook(leave)
