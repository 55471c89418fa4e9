"""What the tests of whole sequences share: networks, batches, and gradients side by side."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from xlstm_rl.kernels.native import sequence_chain
from xlstm_rl.policy.actor_critic import ActorCritic

Batch = tuple[Tensor, tuple[Tensor, ...], Tensor | None]


@pytest.fixture(autouse=True)
def buffers_of_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fill new buffers with NaN, which what was not written would bring into a result."""

    def allocate(size: int) -> Tensor:
        return torch.full((size,), 255, dtype=torch.uint8)

    monkeypatch.setattr(sequence_chain, "allocate", allocate)


MEMORIES: dict[str, dict[str, Any]] = {
    "m": {"pattern": "m"},
    "ms": {"pattern": "ms", "width": 32},
    "s, bare": {"pattern": "s", "final_norm": False, "conv1d_kernel_size": 0, "width": 48},
    "m, biases": {"pattern": "mm", "bias": True, "forget_gate": "exponential", "width": 32},
    "lstm": {"kind": "lstm", "width": 40},
    "gru of two layers": {"kind": "gru", "num_blocks": 2, "width": 24},
}


def gradients(network: ActorCritic, made: tuple[Tensor, ...]) -> list[Tensor | None]:
    params, value = made[:2]
    loss = params.sin().sum() + value.square().sum()
    return [*torch.autograd.grad(loss, [*network.parameters()], allow_unused=True)]


def by_modules(network: ActorCritic, batch: Batch) -> list[Tensor | None]:
    return gradients(network, network(*batch))


def takes_node(network: ActorCritic, batch: Batch) -> bool:
    return network._native_sequences(network, *batch) is not None


def assert_same(mine: list[Tensor | None], theirs: list[Tensor | None]) -> None:
    """Gradients are sums over all steps: what cancels in one leaves the rounding of the largest."""
    largest = max(float(b.abs().max()) for b in theirs if b is not None)
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-6 * largest)


def make_of_another(network: ActorCritic) -> None:
    """Let a weight of the first block be made of another one, as torch's parametrizations do."""

    class Halved(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 0.5 * weight

    memory: Any = network.trunk.memory
    parametrize.register_parametrization(memory.blocks[0].up, "weight", Halved())
