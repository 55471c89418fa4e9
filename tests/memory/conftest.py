from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn

from xlstm_rl.memory import Memory, MemoryConfig, make_memory
from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.options.fields import own_fields

VARIANTS: dict[str, dict[str, Any]] = {
    "m": {"pattern": "m"},
    "s": {"pattern": "s"},
    "ms": {"pattern": "ms"},
    "sm": {"pattern": "sm", "num_blocks": 3},
    "3:1": {"pattern": "3:1"},
    "no convolution": {"pattern": "ms", "conv1d_kernel_size": 0},
    "exponential": {"pattern": "ms", "forget_gate": "exponential", "final_norm": False},
    "own heads": {
        "pattern": "ms",
        "slstm_num_heads": 1,
        "slstm_conv1d_kernel_size": 2,
        "bias": True,
    },
    "odd sizes": {
        "pattern": "ms",
        "width": 30,
        "num_heads": 3,
        "qkv_block_size": 5,
        "round_to": 1,
        "conv1d_kernel_size": 3,
    },
    "sigmoid input gates": {"pattern": "ms", "input_gate": "sigmoid"},
    "no normalizer": {"pattern": "ms", "normalizer": False},
    "neither": {"pattern": "ms", "input_gate": "sigmoid", "normalizer": False},
    "no normalizer, no convolution": {
        "pattern": "sm",
        "normalizer": False,
        "conv1d_kernel_size": 0,
    },
    "no feed-forward": {"pattern": "s", "feedforward_proj_factor": 0.0},
}
# Every other kind that is registered, and where it has blocks or layers two of them.
for _kind, _options in MEMORIES.classes.items():
    if _kind != "xlstm":
        VARIANTS[_kind] = {"kind": _kind}
        if "num_blocks" in own_fields(_options):
            VARIANTS[f"{_kind} of two blocks"] = {"kind": _kind, "num_blocks": 2}
VARIANTS["short chunks"] = {"kind": "mamba2", "chunk_size": 4, "num_heads": 3, "width": 20}
VARIANTS["odd heads"] = {"kind": "rwkv", "chunk_size": 5, "num_heads": 3, "width": 20}
VARIANTS["a short window"] = {"kind": "transformer", "window": 5, "num_heads": 3, "width": 20}
VARIANTS["gated"] = {"kind": "transformer", "gating": "gru", "window": 9, "final_norm": False}
VARIANTS["many frames"] = {"kind": "framestack", "frames": 40, "hidden_width": 7}


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
    blocks = {} if "kind" in request.param else {"num_heads": 2}
    if request.param.get("pattern", "s") != "s":
        blocks["chunk_size"] = 8
    return {"width": 32, **blocks, **request.param}


@pytest.fixture
def memory(options: dict[str, object], perturb: Callable[[nn.Module], None]) -> Memory:
    """A memory of every variant in float64, away from its initial weights."""
    module = make_memory(MemoryConfig(**options)).double()
    perturb(module)
    return module
