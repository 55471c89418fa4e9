"""A memory as a graph of `torch.export`: what it answers, and what is learned through it."""

from contextlib import AbstractContextManager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from xlstm_rl.memory import Memory

B, T = 2, 5


class Sequence(nn.Module):
    def __init__(self, memory: Memory) -> None:
        super().__init__()
        self.memory = memory

    def forward(self, x: Tensor, reset: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        h, after = self.memory.forward_tensors(x, tensors, reset)
        return h, *after


class Step(Sequence):
    def forward(self, x: Tensor, reset: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        h, after = self.memory.step_tensors(x[:, 0], tensors, reset[:, 0])
        return h, *after


def _gradients(module: Any, memory: Memory, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    weights = torch.linspace(-1, 1, memory.width, dtype=torch.float64)
    loss = (module(*inputs)[0] * weights).sum()
    names, parameters = zip(*module.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize(
    "traced", [pytest.param(torch.no_grad, marks=pytest.mark.slow), torch.enable_grad]
)
@pytest.mark.parametrize("form", [Sequence, pytest.param(Step, marks=pytest.mark.slow)])
@pytest.mark.few(9)
def test_an_exported_memory_answers_and_learns_as_itself(
    memory: Memory, form: Any, traced: Any
) -> None:
    module = form(memory)
    x = torch.randn(B, T, memory.width, dtype=torch.float64)
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[0, 0] = reset[1, 3] = True
    state = [torch.rand_like(s) for s in memory.initial_tensors(B)]
    inputs = (x, reset, *state)
    with traced():
        exported = torch.export.export(module, inputs).module()
    expected = module(*inputs)
    mode: AbstractContextManager[None]
    for mode in (torch.no_grad(), torch.enable_grad()):
        with mode:
            for found, own in zip(exported(*inputs), expected, strict=True):
                torch.testing.assert_close(found, own)
    theirs, ours = (_gradients(one, memory, inputs) for one in (exported, module))
    assert theirs.keys() == ours.keys()
    torch.testing.assert_close(theirs, ours)
