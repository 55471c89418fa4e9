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


def _policy() -> Policy:
    config = MemoryConfig(pattern="ms", width=8, num_heads=2, round_to=8)
    box = spaces.Box(-5, 5, (3,), np.float32)
    network = PolicyConfig(head_width=8)
    return Policy(box, spaces.Discrete(4), config, network, NormalizationConfig())


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
    batch = TensorDict(
        {
            "observation": torch.zeros(2, 3),
            STATE: torch.zeros(2, actor.layout.size),
            "is_init": torch.zeros(2, 1, dtype=torch.bool),
        },
        batch_size=[2],
    )
    batch[key] = value
    with pytest.raises(ValueError, match=rf"{key!r} is a \w+, expected a tensor"):
        actor(batch)
