"""Observations that arrive late."""

from __future__ import annotations

import copy
from collections import deque
from typing import Any

import gymnasium as gym
from gymnasium.utils import RecordConstructorArgs

from xlstm_rl.envs.arguments import check_whole


class Delay(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Hand every observation out some steps late.

    After step t comes the observation of step `t - steps`; before there is one, the episode's
    first. Rewards and ends are not late: the last `steps` observations are never seen.

    Args:
        env: Any environment.
        steps: How late.

    Raises:
        ValueError: `steps` is not an integer >= 1.
    """

    def __init__(self, env: gym.Env[Any, Any], steps: int) -> None:
        (steps,) = check_whole("Delay", steps=steps)
        RecordConstructorArgs.__init__(self, steps=steps)
        gym.ObservationWrapper.__init__(self, env)
        self.steps = steps
        self._waiting: deque[Any] = deque(maxlen=steps + 1)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode and return its first observation."""
        self._waiting.clear()
        return super().reset(seed=seed, options=options)

    def observation(self, observation: Any) -> Any:
        """Keep this observation for later and return the one that is due."""
        # Copied, because an environment may write the next observation into the same array.
        self._waiting.append(copy.deepcopy(observation))
        while len(self._waiting) <= self.steps:
            self._waiting.append(self._waiting[-1])
        return copy.deepcopy(self._waiting[0])
