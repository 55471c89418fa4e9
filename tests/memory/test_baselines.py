"""LSTM and GRU against torch's own modules run on each episode by itself."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from xlstm_rl.memory import GRUMemory, LSTMMemory, MemoryConfig, MLPMemory, make_memory
from xlstm_rl.memory.config import MEMORIES

B, T, D = 5, 33, 16

OF_ANOTHER_SIZE: set[str] = set()
"""Kinds of memory whose weights are of another number than an mLSTM block's, on purpose."""


def by_episode(network: nn.Module, x: Tensor, start: tuple[Tensor, ...], reset: Tensor) -> Tensor:
    """Run the torch module over each episode of each row alone."""
    rows = []
    for b in range(B):
        borders = [0, *[t for t in range(1, T) if reset[b, t]], T]
        outputs = []
        for begin, end in pairwise(borders):
            state = None
            if begin == 0 and not reset[b, 0]:
                tensors = tuple(tensor[b].unsqueeze(1) for tensor in start)  # [layers, 1, D]
                state = tensors if len(tensors) == 2 else tensors[0]
            outputs.append(network(x[b : b + 1, begin:end], state)[0])
        rows.append(torch.cat(outputs, 1))
    return torch.cat(rows)


@pytest.mark.parametrize("share", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_resets_inside_equal_torch_run_episode_by_episode(
    kind: str, layers: int, share: float
) -> None:
    memory = make_memory(MemoryConfig(kind=kind, width=D, num_blocks=layers)).double()
    assert isinstance(memory, (LSTMMemory, GRUMemory))
    x = torch.randn(B, T, D, dtype=torch.float64)
    start = tuple(torch.randn_like(tensor) for tensor in memory.initial_tensors(B))
    reset = torch.rand(B, T) < share
    y, _ = memory.forward_tensors(x, start, reset)
    expected = by_episode(memory.network, x, start, reset)
    torch.testing.assert_close(y, expected, atol=1e-12, rtol=1e-12)


def test_the_mlp_sees_one_step_at_a_time() -> None:
    memory = make_memory(MemoryConfig(kind="mlp", width=D, num_blocks=2))
    assert isinstance(memory, MLPMemory)
    x = torch.randn(B, T, D)
    torch.testing.assert_close(memory(x)[0], memory(x.flip(1))[0].flip(1))


def test_the_memories_are_of_comparable_size() -> None:
    def size(kind: str) -> int:
        config = MemoryConfig(kind=kind, width=64)
        return sum(p.numel() for p in make_memory(config).parameters())

    sizes = {kind: size(kind) for kind in MEMORIES.classes if kind not in OF_ANOTHER_SIZE}
    assert max(sizes.values()) < 1.5 * min(sizes.values()), sizes
