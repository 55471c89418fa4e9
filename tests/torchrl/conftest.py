"""Memories small enough for TorchRL's loops, and the module stepped through a sequence."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl import collectors
from torchrl.envs.transforms import Compose, InitTracker
from torchrl.modules import utils

from xlstm_rl import XLSTMModule
from xlstm_rl.versions import installed_version

from ..start_methods import usual_start_method

IS_OLD = installed_version("torchrl") < (0, 14)


def torchrl_014(lacks: str) -> pytest.MarkDecorator:
    """Mark a test of what TorchRL itself lacks before 0.14."""
    return pytest.mark.skipif(IS_OLD, reason=f"TorchRL before 0.14 {lacks}")


def _older_transforms(module: nn.Module, init_key: str = "is_init") -> Compose:
    return Compose(InitTracker(init_key=init_key), utils.get_primers_from_module(module))


# What is newer than 0.10, or has another name there.
Collector = getattr(collectors, "Collector", None) or collectors.SyncDataCollector
MultiSyncCollector = (
    getattr(collectors, "MultiSyncCollector", None) or collectors.MultiSyncDataCollector
)
get_env_transforms_from_module = getattr(utils, "get_env_transforms_from_module", _older_transforms)


@pytest.fixture(autouse=True)
def _started_afresh() -> Iterator[None]:
    """Processes start as they do where TorchRL is imported."""
    multiprocessing.set_start_method("spawn", force=True)
    yield
    usual_start_method()


MEMORIES = {
    "m": {"pattern": "m", "width": 8, "num_heads": 2, "round_to": 8},
    "ms": {"pattern": "ms", "width": 8, "num_heads": 2, "round_to": 8},
    "lstm": {"kind": "lstm", "width": 8, "num_blocks": 2},
    "gru": {"kind": "gru", "width": 8},
    "mlp": {"kind": "mlp", "width": 8},
    "framestack": {"kind": "framestack", "width": 8},
    "mingru": {"kind": "mingru", "width": 8},
    "transformer": {"kind": "transformer", "width": 8, "num_heads": 2, "window": 6},
    "mamba2": {"kind": "mamba2", "width": 8, "num_heads": 2, "state_size": 4},
    "rwkv": {"kind": "rwkv", "width": 8, "num_heads": 2},
}


def make_module(memory: Any = None, **options: Any) -> XLSTMModule:
    """Return a module, by default a GRU of width 8 from "observation" to "embed"."""
    if not options.keys() & {"in_key", "in_keys"}:
        options["in_key"] = "observation"
    if not options.keys() & {"out_key", "out_keys"}:
        options["out_key"] = "embed"
    return XLSTMModule(4, memory or {"kind": "gru", "width": 8}, **options)


def make_batch(module: XLSTMModule, *shape: int) -> TensorDict:
    """Return what that module reads, with states of zeros and nowhere an episode's start."""
    return TensorDict(
        {
            "observation": torch.randn(*shape, 4),
            "recurrent_state": torch.zeros(*shape, module.layout.size),
            "is_init": torch.zeros(*shape, 1, dtype=torch.bool),
        },
        batch_size=shape,
    )


@pytest.fixture(params=list(MEMORIES))
def memory(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options of each kind of memory in turn."""
    return MEMORIES[request.param]


@pytest.fixture(params=[name for name in MEMORIES if name != "mlp"])
def stateful(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options of each kind of memory that has a state."""
    return MEMORIES[request.param]


@pytest.fixture
def xlstm() -> dict[str, Any]:
    """Both kinds of block."""
    return MEMORIES["ms"]


class Sequences:
    """Makes batches for a module, and steps the module through them as the oracle."""

    @staticmethod
    def batch(module: XLSTMModule, *shape: int, init: float = 0.0, stored: float = 0.0) -> Any:
        """Random input `[*shape]`, episode starts and stored states with these probabilities."""
        keep = (torch.rand(*shape, 1) < stored).float()
        state = 0.1 * torch.randn(*shape, module.layout.size).abs() * keep
        return TensorDict(
            {
                module.in_keys[0]: torch.randn(*shape, module.input_size),
                module.in_keys[1]: state,
                module.in_keys[2]: torch.rand(*shape, 1) < init,
            },
            batch_size=shape,
        )

    @staticmethod
    def steps(module: XLSTMModule, batch: TensorDict) -> tuple[Tensor, Tensor]:
        """Outputs and states of the steps `[B, T]` one by one; a start takes what is stored."""
        x, state, init = (batch[key] for key in module.in_keys)
        outputs, after, now = [], [], state[:, 0]
        for t in range(x.shape[1]):
            if t > 0:
                now = torch.where(init[:, t], state[:, t], now)
            one = TensorDict(
                {
                    module.in_keys[0]: x[:, t],
                    module.in_keys[1]: now,
                    module.in_keys[2]: torch.zeros_like(init[:, t]),
                },
                batch_size=x.shape[:1],
            )
            module(one)
            now = one[module.out_keys[1]]
            outputs.append(one[module.out_keys[0]])
            after.append(now)
        return torch.stack(outputs, 1), torch.stack(after, 1)

    @staticmethod
    def ends(batch: TensorDict) -> Tensor:
        """`[B, T, 1]`, true at the last step of a trajectory."""
        init = batch["is_init"]
        return torch.cat((init[:, 1:], torch.ones_like(init[:, :1])), 1)


@pytest.fixture
def sequences() -> type[Sequences]:
    """The class itself."""
    return Sequences
