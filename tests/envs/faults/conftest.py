"""An environment that does wrong in every second episode, and training that goes on with it."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentPPO

Answer = list[Any]
Fault = Callable[[Answer], Any]
"""Spoils observation, reward, terminated, truncated and info."""


class Fragile(gymnasium.Env[Any, Any]):
    """Pays 1 a step and ends after four; the third step of its second episode has the fault.

    A new one begins with a good episode again, so every second episode breaks.
    """

    action_space = spaces.Discrete(2)
    gives_masks = False

    def __init__(self, space: Any, fault: Fault) -> None:
        self.observation_space, self.fault, self.episode = space, fault, 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._see(), self._info()

    def step(self, action: Any) -> Any:
        self.t += 1
        answer = [self._see(), 1.0, self.t == 4, False, self._info()]
        return self.fault(answer) if self.episode == 2 and self.t == 3 else tuple(answer)

    def _info(self) -> dict[str, Any]:
        return {"action_mask": np.ones(2, np.int8)} if self.gives_masks else {}

    def _see(self) -> Any:
        observation = self.observation_space.sample()
        if isinstance(observation, dict) and "action_mask" in observation:
            observation["action_mask"][:] = 1
        return observation


def _agent(make: Callable[[], Any], policy: dict[str, Any] | None = None, **env: Any) -> Any:
    Fragile.gives_masks = policy == {"action_mask": "info"}
    return RecurrentPPO(
        make,
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 16, "minibatches": 1, "epochs": 1},
        env={"num_envs": 2, "on_error": "restart", **env},
        policy=policy or {},
        logger={"kind": "none"},
    )


def _train(agent: Any, rollouts: int) -> None:
    """Train, then look at more rollouts: broken episodes are in none of the figures."""
    agent.learn(64)
    assert all(torch.isfinite(p).all() for p in agent.parameters)
    broken = whole = 0
    for _ in range(rollouts):
        rollout = agent._collector.collect()
        assert set(rollout.episode_lengths) == {4} and set(rollout.episode_returns) == {4.0}
        for row in rollout.data:
            assert torch.isfinite(row["reward"]).all() and torch.isfinite(row["value"]).all()
            starts = row["reset"].nonzero().flatten().tolist()
            for first, after in pairwise(starts):
                valid, paid = row["valid"][first:after], int(row["reward"][first:after].sum())
                if paid == 4:
                    whole += 1
                    assert valid[:4].all() and not row["truncated"][first:after].any()
                else:
                    broken += 1
                    assert paid == 2 and not valid.any() and row["truncated"][first + 2]
    assert broken >= rollouts and whole >= rollouts


@pytest.fixture
def fragile() -> type[Fragile]:
    """The class itself, of a space and a fault: what becomes of a step's answer."""
    return Fragile


@pytest.fixture
def restarting_agent() -> Callable[..., Any]:
    """A function of a callable, the section `policy`, and options of the section `env`."""
    return _agent


@pytest.fixture
def train_through_faults() -> Callable[[Any, int], None]:
    """A function that trains an agent and finds broken and whole episodes in more rollouts."""
    return _train
