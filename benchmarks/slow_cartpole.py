"""CartPole whose step takes as long as is asked for, as `slow_cartpole:SlowCartPole-v0`."""

import time
from typing import Any

import gymnasium
from gymnasium.envs.classic_control import CartPoleEnv

ENV_ID = f"{__name__}:SlowCartPole-v0"


class SlowCartPole(CartPoleEnv):
    """CartPole whose step takes a while.

    Args:
        seconds: of a step.
        waits: the step sleeps, and leaves its core to others; otherwise it computes.
    """

    def __init__(self, seconds: float, waits: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._seconds, self._waits = seconds, waits

    def step(self, action: Any) -> Any:
        """Take as long as was asked for, and then step."""
        until = time.perf_counter() + self._seconds
        if self._waits:
            time.sleep(self._seconds)
        left = self._seconds
        while left > 0:  # busy, as an environment that computes is
            left = until - time.perf_counter()
        return super().step(action)


gymnasium.register("SlowCartPole-v0", SlowCartPole, max_episode_steps=500)
