"""What an actor made of a policy refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from tensordict import TensorDict

from xlstm_rl.memory import MemoryConfig
from xlstm_rl.normalization import NormalizationConfig
from xlstm_rl.policy import Policy, PolicyConfig

STATE = "recurrent_state"


def _policy(action: Any = None, observation: Any = None, **options: Any) -> Policy:
    config = MemoryConfig(pattern="ms", width=8, num_heads=2, round_to=8)
    observation = spaces.Box(-5, 5, (3,), np.float32) if observation is None else observation
    action = spaces.Discrete(4) if action is None else action
    network = PolicyConfig(head_width=8, **options)
    return Policy(observation, action, config, network, NormalizationConfig())


def _batch(actor: Any) -> TensorDict:
    return TensorDict(
        {
            "observation": torch.zeros(2, 3),
            STATE: torch.zeros(2, actor.layout.size),
            "is_init": torch.zeros(2, 1, dtype=torch.bool),
        },
        batch_size=[2],
    )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"state_key": 3}, TypeError, "state_key=3: expected a key"),
        ({"init_key": ()}, TypeError, r"init_key=\(\): expected a key"),
        ({"state_key": "is_init"}, ValueError, "'is_init' stands there twice"),
        ({"state_key": "observation"}, ValueError, "'observation' stands there twice"),
        ({"init_key": "action"}, ValueError, "'action' stands there twice"),
        ({"deterministic": "yes"}, TypeError, "deterministic='yes': expected True, False or None"),
        ({"categorical_action_encoding": 1}, TypeError, "encoding=1: expected True or False"),
    ],
)
def test_wrong_arguments_are_refused(options: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        _policy().as_tensordict_module(**options)


@pytest.mark.parametrize("key", ["observation", STATE, "is_init"])
@pytest.mark.parametrize("value", ["words", TensorDict({"a": torch.zeros(2)}, [2])])
def test_entry_that_is_no_tensor_is_refused(key: str, value: Any) -> None:
    actor = _policy().as_tensordict_module()
    batch = _batch(actor)
    batch[key] = value
    with pytest.raises(ValueError, match=rf"{key!r} is a \w+, expected a tensor"):
        actor(batch)


def test_a_table_of_different_counts_needs_indices() -> None:
    policy = _policy(spaces.MultiDiscrete([[3, 2], [2, 4]]))
    with pytest.raises(
        ValueError, match=r"table of different counts.*categorical_action_encoding="
    ):
        policy.as_tensordict_module()
    actor = policy.as_tensordict_module(categorical_action_encoding=True)
    assert actor(_batch(actor))["action"].shape == (2, 2, 2)


def test_reward_of_another_shape_is_refused() -> None:
    actor = _policy(previous_reward=True).as_tensordict_module()
    with pytest.raises(
        ValueError, match=r"'previous_reward' has shape \[2, 3\], expected \[2, 1\]"
    ):
        actor(_batch(actor).set("previous_reward", torch.zeros(2, 3)))


def test_missing_part_of_the_observation_says_what_is_read() -> None:
    space = spaces.Dict(x=spaces.Box(-1, 1, (2,)), y=spaces.Discrete(3))
    actor = _policy(observation=space).as_tensordict_module()
    batch = _batch(actor).exclude("observation").set("x", torch.zeros(2, 2))
    with pytest.raises(
        KeyError, match=r"'y' is missing: the policy reads \['x', 'y'\], found.*'x'"
    ):
        actor(batch)


def test_one_output_may_be_selected() -> None:
    actor = _policy().as_tensordict_module()
    actor.select_out_keys("action")
    out = actor(_batch(actor))
    assert "action" in out and "next" not in out
