"""Environments that write their next answer over the last one."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from xlstm_rl import RecurrentPPO
from xlstm_rl.collection.collector import Rollout

MODES = ["same_step", "next_step", "disabled"]
FLAT = spaces.Box(-9, 9, (2,))
NESTED = spaces.Dict(near=FLAT, far=spaces.Tuple([FLAT]))

pytestmark = pytest.mark.usefixtures("forked")


class Counts(gymnasium.Env[Any, Any]):
    """Observes the steps of its episode, of which every second is cut after three.

    Every episode succeeds. With `reuse` all answers are the same objects.
    """

    action_space = spaces.Discrete(2)

    def __init__(self, space: Any, reuse: bool) -> None:
        self.observation_space, self.reuse, self.episode = space, reuse, 0
        self.memory, self.info = np.zeros(2, np.float32), dict[str, Any]()

    def _answer(self, success: bool) -> tuple[Any, dict[str, Any]]:
        if not self.reuse:
            self.memory, self.info = np.zeros(2, np.float32), {}
        self.memory[:] = self.t, self.episode % 2
        self.info["is_success"] = success
        nested = isinstance(self.observation_space, spaces.Dict)
        seen = {"near": self.memory, "far": (self.memory,)} if nested else self.memory
        return seen, self.info

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.episode, self.t = self.episode + 1, 0
        return self._answer(False)

    def step(self, action: Any) -> Any:
        self.t += 1
        over, cut = self.t == 3, self.episode % 2 == 0
        seen, info = self._answer(over)
        return seen, 1.0, over and not cut, over and cut, info


def _rollout(space: Any, reuse: bool, mode: str, kind: str) -> Rollout:
    agent = RecurrentPPO(
        lambda: Counts(space, reuse),
        env={"num_envs": 2, "autoreset": mode, "vectorization": kind},
        memory={"kind": "gru", "width": 8},
        agent={"rollout_steps": 16, "minibatches": 1, "epochs": 1},
        logger={"kind": "none"},
    )
    rollout = agent._make_collector().collect()
    agent.close()
    return rollout


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("space", [FLAT, NESTED], ids=["flat", "nested"])
@pytest.mark.each_value
def test_a_final_observation_is_not_that_of_the_next_episode(
    space: Any, mode: str, kind: str
) -> None:
    ours, expected = (_rollout(space, reuse, mode, kind) for reuse in (True, False))
    assert expected.data["truncated"].any()
    for name, column in expected.data.items(True, True):
        assert torch.equal(ours.data[name], column), name
    assert ours.episode_successes == expected.episode_successes
    assert set(ours.episode_successes) == {1.0}
