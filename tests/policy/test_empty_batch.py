"""A batch of no environments is a batch: actions and a state of no rows, and no error."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

BOX = spaces.Box(-5, 5, (3,), np.float32)
TORQUE = spaces.Box(-2, 2, (1,), np.float32)
JOINT = spaces.Dict(
    arm=spaces.Box(-1, 1, (2, 2)), bits=spaces.MultiBinary(2), gear=spaces.Discrete(3, start=1)
)
OBSERVATIONS = {
    "box": BOX,
    "matrix": spaces.Box(-5, 5, (3, 2), np.float32),
    "choice": spaces.Discrete(3),
    "choices": spaces.MultiDiscrete([2, 3]),
    "bits": spaces.MultiBinary(3),
    "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
    "joint": JOINT,
}
ACTIONS = {
    "box": TORQUE,
    "matrix": spaces.Box(-2, 2, (2, 2), np.float32),
    "choice": spaces.Discrete(3),
    "choices": spaces.MultiDiscrete([[2, 3], [1, 2]]),
    "bits": spaces.MultiBinary(2),
    "joint": JOINT,
}


def _map(function: Callable[..., Any], nested: Any) -> Any:
    if isinstance(nested, dict):
        return {name: function(one) for name, one in nested.items()}
    return function(nested)


def _leaves(nested: Any) -> list[NDArray[Any]]:
    return list(nested.values()) if isinstance(nested, dict) else [nested]


def _no_rows(space: gymnasium.Space[Any]) -> Any:
    if isinstance(space, spaces.Dict):
        return _map(_no_rows, dict(space.items()))
    return np.zeros((0, *(space.shape or ())), space.dtype)


def _check(observation: gymnasium.Space[Any], action: gymnasium.Space[Any]) -> None:
    memory = MemoryConfig(kind="gru", width=16)
    network = PolicyConfig(head_width=8)
    policy = Policy(observation, action, memory, network, NormalizationConfig())
    obs = _no_rows(observation)
    _, state = policy.act(obs)
    flags = np.zeros(0, np.bool_)
    for options in ({"deterministic": False}, {"deterministic": False, "generator": []}, {}):
        found, after = policy.act(obs, state, reset=flags, **options)
        assert tuple(after.batch_size) == (0,)
        for one, expected in zip(_leaves(found), _leaves(_no_rows(action)), strict=True):
            assert one.shape == expected.shape
    taken = policy.network.distribution.from_env(_map(torch.from_numpy, _no_rows(action)))
    assert taken.shape == (0, *policy.network.distribution.action_shape)


@pytest.mark.parametrize("name", OBSERVATIONS)
def test_observations_of_no_rows(name: str) -> None:
    _check(OBSERVATIONS[name], TORQUE)


@pytest.mark.parametrize("name", ACTIONS)
def test_actions_of_no_rows(name: str) -> None:
    _check(BOX, ACTIONS[name])
