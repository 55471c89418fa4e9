from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

OBSERVATION = gymnasium.spaces.Box(-5, 5, (3,), np.float32)
TORQUE = gymnasium.spaces.Box(-2, 2, (1,), np.float32)


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
