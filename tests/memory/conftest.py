from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from xlstm_rl.memory import Memory, MemoryConfig, make_memory

VARIANTS = {
    "m": {"pattern": "m"},
    "s": {"pattern": "s"},
    "ms": {"pattern": "ms"},
    "sm": {"pattern": "sm", "num_blocks": 3},
    "3:1": {"pattern": "3:1"},
    "no convolution": {"pattern": "ms", "conv_window": 0},
    "exponential": {"pattern": "ms", "forget_gate": "exponential", "final_norm": False},
    "own heads": {"pattern": "ms", "slstm_num_heads": 1, "slstm_conv_window": 2, "bias": True},
    "odd sizes": {
        "pattern": "ms",
        "width": 30,
        "num_heads": 3,
        "qkv_block_size": 5,
        "round_to": 1,
        "conv_window": 3,
    },
    "no feed-forward": {"pattern": "s", "feed_forward_factor": 0.0},
    "lstm": {"kind": "lstm"},
    "lstm of two layers": {"kind": "lstm", "num_blocks": 2},
    "gru": {"kind": "gru"},
    "gru of two layers": {"kind": "gru", "num_blocks": 2},
    "mlp": {"kind": "mlp"},
}


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> Iterator[None]:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield


@pytest.fixture
def perturb() -> Callable[[nn.Module], None]:
    """Move every weight off its initial value: gates and mixing start at zero, norms at one."""

    def move(module: nn.Module) -> None:
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))

    return move


@pytest.fixture(params=VARIANTS.values(), ids=VARIANTS.keys())
def options(request: pytest.FixtureRequest) -> dict[str, object]:
    chosen: dict[str, object] = {"width": 32, "num_heads": 2, "chunk_size": 8}
    return chosen | request.param


@pytest.fixture
def memory(options: dict[str, object], perturb: Callable[[nn.Module], None]) -> Memory:
    """A memory of every variant in float64, away from its initial weights."""
    module = make_memory(MemoryConfig(**options)).double()  # type: ignore[arg-type]
    perturb(module)
    return module
