"""A time limit is no end: with a constant reward of 1, V tends to 1 / (1 - gamma) in all modes."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentPPO
from xlstm_rl.returns import generalized_advantage

MODES = ["same_step", "next_step", "disabled"]
GAMMA, LIMIT = 0.9, 5
EXPECTED = 1.0 / (1.0 - GAMMA)


class Endless(gymnasium.Env[Any, Any]):
    """Pays 1 for ever; there is nothing to see and nothing to do."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        return np.zeros(1, np.float32), 1.0, False, False, {}


def _agent(mode: str, vectorization: str = "sync", **agent: Any) -> RecurrentPPO:
    return RecurrentPPO(
        Endless,
        env={
            "num_envs": 3,
            "autoreset": mode,
            "vectorization": vectorization,
            "max_episode_steps": LIMIT,
        },
        memory={"kind": "gru", "width": 16},
        policy={"critic": "separate"},  # whose value nothing else disturbs
        normalization={"observation": False, "reward": False},
        agent={"gamma": GAMMA, "minibatches": 1, **agent},
        logger={"kind": "none"},
    )


@pytest.mark.parametrize("mode", MODES)
def test_the_true_value_is_the_fixed_point_of_every_target(mode: str) -> None:
    agent = _agent(mode, rollout_steps=4 * LIMIT + 2)
    output = agent.policy.network.value_head.output
    # a critic that knows the answer, whatever it sees
    torch.nn.init.zeros_(output.weight)
    torch.nn.init.constant_(output.bias, EXPECTED)
    data = agent._make_collector().collect().data
    assert data["truncated"].sum() >= 9 and not data["terminated"].any()
    keys = ("reward", "value", "next_value", "terminated", "truncated")
    advantage, target = generalized_advantage(*(data[key] for key in keys), GAMMA, 0.95)
    torch.testing.assert_close(
        target[data["valid"]], torch.full_like(target, EXPECTED)[data["valid"]]
    )
    assert advantage[data["valid"]].abs().max() < 1e-5


@pytest.mark.parametrize("mode", MODES)
def test_the_value_is_learned(mode: str) -> None:
    agent = _agent(mode, rollout_steps=10, epochs=8, learning_rate=0.05, max_grad_norm=100.0)
    agent.learn(25 * 30)
    value = agent._make_collector().collect().data["value"]
    # on its way to 10; it would be 4.1 at most if the limit were an end
    assert value.min() > 0.78 * EXPECTED and value.max() < 1.05 * EXPECTED
