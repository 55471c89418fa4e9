"""Rollouts in which one step counts, or none: finite losses, and no warning."""

import math
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentA2C, RecurrentPPO
from xlstm_rl.agents.losses import explained_variance, normalized, valid_mean

ONE = torch.tensor([[False, True, False]])
NONE = torch.zeros(1, 3, dtype=torch.bool)
X = torch.tensor([[1.0, 2.0, 5.0]])


def test_with_one_valid_step_there_is_no_variance_to_explain() -> None:
    assert explained_variance(X, X + 1, ONE) == 0.0
    assert explained_variance(X[:, :1], X[:, :1], None) == 0.0
    assert explained_variance(X, X, None) == 1.0


def test_with_no_valid_step_every_mean_is_zero() -> None:
    assert explained_variance(X, X, NONE) == 0.0
    assert valid_mean(X, NONE).item() == 0.0 and valid_mean(X, ONE).item() == 2.0
    assert torch.equal(normalized(X, NONE), X) and torch.equal(normalized(X, ONE), X)


class Short(gymnasium.Env[Any, Any]):
    """Every episode has one step, so that every second step of a vector only resets."""

    observation_space, action_space = spaces.Box(-9, 9, (2,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.np_random.normal(size=2).astype(np.float32), {}

    def step(self, action: Any) -> Any:
        return np.ones(2, np.float32), 1.0, True, False, {}


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("algo", [RecurrentPPO, RecurrentA2C])
def test_training_on_one_valid_step_or_none_stays_finite(algo: Any, steps: int) -> None:
    agent = algo(
        Short,
        env={"num_envs": 1, "autoreset": "next_step"},
        memory={"kind": "gru", "width": 8},
        policy={"previous_reward": True},
        agent={"rollout_steps": steps, **({"minibatches": 1} if algo is RecurrentPPO else {})},
        logger={"kind": "none"},
    )
    found: list[dict[str, float]] = []
    agent.learn(steps * 4, on_update=lambda _, metrics: found.append(metrics))
    assert len(found) == 4
    for metrics in found:
        assert all(math.isfinite(value) for name, value in metrics.items() if "loss/" in name)
    assert all(torch.isfinite(p).all() for p in agent.parameters)
    assert agent.reward_normalizer.moments.var.isfinite()
