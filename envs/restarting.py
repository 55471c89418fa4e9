"""Environments that are made anew when they raise."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym

from xlstm_rl.envs.checked import CheckedEnv, EnvStepError

BROKEN = "xlstm_rl/broken"
"""The key in the info of the last step of an episode that broke."""

_MOST_IN_A_ROW = 3


class RestartingEnv(gym.Env[Any, Any]):
    """Cut an episode in which the environment raised, and go on with a new environment.

    To those who step it, a broken episode was truncated at the last observation that came out of
    it, with a reward of zero and `info[BROKEN]` true. Each restart is told in a warning.

    Args:
        make: makes one environment.
        index: its number in the vector, for errors.

    Raises:
        EnvStepError: the environment raised three times without a step in between.
    """

    def __init__(self, make: Callable[[], gym.Env[Any, Any]], index: int) -> None:
        self._make, self._name = make, f"environment {index}"
        self._env = CheckedEnv(make(), self._name)
        self.observation_space = self._env.observation_space
        self.action_space = self._env.action_space
        self.metadata, self.render_mode = self._env.metadata, self._env.render_mode
        self._failures = 0
        self._last: Any = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode, in a new environment where this one cannot."""
        while True:
            try:
                observation, info = self._env.reset(seed=seed, options=options)
            except EnvStepError as error:
                self._restart(error)
            else:
                self._last = copy.deepcopy(observation)
                return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment; a step in which it raises ends the episode."""
        try:
            answer = self._env.step(action)
        except EnvStepError as error:
            self._restart(error)
            return self._last, 0.0, False, True, {BROKEN: True}
        self._failures = 0
        self._last = copy.deepcopy(answer[0])  # some environments write into their observation
        return answer

    def _restart(self, error: EnvStepError) -> None:
        self._failures += 1
        if self._failures >= _MOST_IN_A_ROW:
            raise EnvStepError(
                f"{error} ({self._failures} times in a row: env.on_error='restart' gives up)"
            ) from error
        warnings.warn(f"{error}: restarted", RuntimeWarning, stacklevel=2)
        try:
            self._env.close()
        except Exception as failure:
            warnings.warn(
                f"{self._name} raised in close: {failure!r}", RuntimeWarning, stacklevel=2
            )
        self._env = CheckedEnv(self._make(), self._name)

    def render(self) -> Any:
        """Return what the environment renders."""
        return self._env.render()

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    @property
    def unwrapped(self) -> gym.Env[Any, Any]:
        """The environment at the core, while it lives."""
        return self._env.unwrapped


def restarting(make: Callable[[], gym.Env[Any, Any]], index: int) -> Callable[[], RestartingEnv]:
    """Return a maker of a `RestartingEnv`."""

    def maker() -> RestartingEnv:
        return RestartingEnv(make, index)

    return maker
