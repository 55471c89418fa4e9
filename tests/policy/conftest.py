from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

OBSERVATION = gymnasium.spaces.Box(-5, 5, (3,), np.float32)
TORQUE = gymnasium.spaces.Box(-2, 2, (1,), np.float32)
NESTED = gymnasium.spaces.Dict(
    eye=gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8),
    room=gymnasium.spaces.Discrete(3, start=2),
    rest=gymnasium.spaces.Tuple([gymnasium.spaces.MultiDiscrete([2, 3], start=[1, 0])]),
)
JOINT = gymnasium.spaces.Dict(
    arm=gymnasium.spaces.Box(-1, 1, (2,)),
    bits=gymnasium.spaces.MultiBinary(2),
    gear=gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(3, start=1)]),
)
PATTERNS = {pattern: {"pattern": pattern} for pattern in ("m", "s", "ms")}
KINDS = {kind: {"kind": kind} for kind in MEMORIES.classes if kind != "xlstm"}


def _episodes(steps: int = 200, rows: int = 3) -> Iterator[tuple[Any, Any]]:
    """Observations with resets of every form: none, of some rows, of all, and one bool."""
    rng = np.random.default_rng(1)
    for t in range(steps):
        obs = rng.normal(size=(rows, 3)).astype(np.float32)
        reset: Any = rng.random(rows) < 0.1 if t % 3 == 0 else None
        yield obs, (True if t % 50 == 0 else False if t % 50 == 20 else reset)


@pytest.fixture
def make_policy() -> Callable[..., Policy]:
    """Return a function that makes a small policy whose weights are not the initial ones."""

    def make(
        observation: gymnasium.Space[Any] = OBSERVATION,
        action: gymnasium.Space[Any] = TORQUE,
        critic: str = "separate",
        config: dict[str, Any] | None = None,
        **memory: Any,
    ) -> Policy:
        blocks = {} if "kind" in memory else {"pattern": "ms", "num_heads": 2}
        memories = MemoryConfig(**{"width": 16, **blocks, **memory})
        network = PolicyConfig(**{"head_width": 8, "critic": critic, **(config or {})})
        policy = Policy(observation, action, memories, network, NormalizationConfig())
        with torch.no_grad():
            for weight in policy.network.parameters():
                weight.add_(0.1 * torch.randn_like(weight))
        if observation.shape == (3,):
            policy.normalizer.update(2.0 * torch.randn(100, 3) + 1.0)
        return policy

    return make


@pytest.fixture(params=[*PATTERNS.values(), *KINDS.values()], ids=[*PATTERNS, *KINDS])
def any_memory(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The options of every kind of memory, and of every kind of xLSTM block."""
    return dict(request.param)


@pytest.fixture
def nested_spaces() -> tuple[gymnasium.spaces.Dict, gymnasium.spaces.Dict]:
    """A space of observations and one of actions, each with spaces of every kind in it."""
    return NESTED, JOINT


@pytest.fixture
def episodes() -> Callable[..., Iterator[tuple[Any, Any]]]:
    """A function that yields observations and resets of a number of steps and of rows."""
    return _episodes
