"""The whole step of a policy as a graph, for whoever runs policies without Python."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from xlstm_rl.memory.config import MEMORIES
from xlstm_rl.policy import Policy

Make = Callable[..., Policy]
TORQUE = spaces.Box(np.array([-0.1, 5.0]), np.array([0.7, np.inf]), dtype=np.float64)


class Step(nn.Module):
    """A policy's deterministic step: observation, reset and state in, action and state out."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, obs: Any, reset: Tensor, *tensors: Tensor) -> Any:
        """Return the action and the state after it."""
        return self.policy.step(obs, tensors, reset)


@pytest.mark.parametrize("kind", list(MEMORIES.classes))
@pytest.mark.parametrize("action", [spaces.Discrete(3, start=1), TORQUE], ids=str)
@pytest.mark.each_value
def test_an_exported_step_acts_as_the_policy(make_policy: Make, kind: str, action: Any) -> None:
    policy = make_policy(action=action, kind=kind, config={"previous_action": True})
    step, rng = Step(policy).eval(), np.random.default_rng(0)
    tensors = policy.initial_tensors(2, policy.device, critic=False)
    reset = torch.tensor([False, True])
    with torch.no_grad():
        exported = torch.export.export(step, (torch.zeros(2, 3), reset, *tensors)).module()
    ours = theirs = tensors
    for t in range(6):
        obs = torch.from_numpy(rng.normal(size=(2, 3)).astype(np.float32))
        flags = torch.tensor([t == 3, t == 0])
        expected, theirs = policy.step(obs, theirs, flags)
        found, ours = exported(obs, flags, *ours)
        # a network in float32, whose numbers the environment has in float64
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-5)
