"""Policies to export: every kind of space, memory and auxiliary input."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

BOX = spaces.Box(-np.inf, np.inf, (3,), np.float32)
MASKED = spaces.Dict({"a": BOX, "mask": spaces.MultiBinary(4)})
NESTED = spaces.Dict(
    {
        "camera": spaces.Box(0, 255, (36, 36, 3), np.uint8),
        "pose": spaces.Tuple((BOX, spaces.Discrete(5, start=2))),
    }
)

COMPARED = ("framestack", "mingru", "transformer", "mamba2", "rwkv")
"""Kinds of memory to compare with."""

CASES = {
    "discrete ms": (BOX, spaces.Discrete(3), {"pattern": "ms"}, {}),
    "box m": (spaces.Box(-5, 5, (2, 3), np.float64), spaces.Box(-2, 3, (2,)), {"pattern": "m"}, {}),
    "dict with images, s": (
        NESTED,
        spaces.Dict({"go": spaces.Discrete(3), "turn": spaces.Box(-1, 1, (2,), np.float64)}),
        {"pattern": "s"},
        {},
    ),
    "previous inputs, lstm": (
        spaces.MultiDiscrete([3, 4]),
        spaces.MultiDiscrete([2, 3]),
        {"kind": "lstm"},
        {"previous_action": True, "previous_reward": True, "first_step": True},
    ),
    "mask in info, gru": (BOX, spaces.Discrete(4), {"kind": "gru"}, {"action_mask": "info"}),
    "mask in the observation, mlp": (
        MASKED,
        spaces.Discrete(4),
        {"kind": "mlp"},
        {"action_mask": "observation", "action_mask_key": "mask"},
    ),
    **{kind: (BOX, spaces.Box(-2, 3, (2,)), {"kind": kind}, {}) for kind in COMPARED},
    "image, squashed": (
        spaces.Box(0, 255, (36, 36, 3), np.uint8),
        spaces.Box(-1, 1, (2,)),
        {"pattern": "m"},
        {"critic": "shared"},
    ),
}


def make_policy(
    observation: gymnasium.Space, action: gymnasium.Space, memory: dict, policy: dict
) -> Policy:
    """A policy far from its first weights and statistics."""
    torch.manual_seed(0)
    sizes = {"width": 16} | ({"num_heads": 2} if "pattern" in memory else {})
    made = Policy(
        observation,
        action,
        MemoryConfig(**{**sizes, **memory}),
        PolicyConfig(**policy),
        NormalizationConfig(),
    )
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return made


@pytest.fixture(params=CASES)
def policy(request):
    return make_policy(*CASES[request.param])
