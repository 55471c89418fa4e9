"""Everything that an environment answers, looked at where it can still be made anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import Space, spaces

from xlstm_rl.envs.faults.error_context import ErrorContextEnv, wrong_observation
from xlstm_rl.envs.spaces.leaves import Leaf, space_leaves, take

AnswerCheck = Callable[[Space[Any], Any, dict[str, Any]], str | None]
"""Says what is wrong with an observation and its info, given the action space; None: nothing."""


class ValidatingEnv(ErrorContextEnv):
    """Refuse whatever an environment answers that no policy can be trained on.

    That is, beside what `ErrorContextEnv` refuses: observations with a choice outside their space,
    observations and rewards that are not finite, and what `check` finds. Without it the vector or
    the rollout finds them, when the episode can no longer be cut.

    Args:
        env: one environment.
        name: what it is called in errors.
        check: another look at each observation and info that an action is chosen from.
    """

    def __init__(self, env: gym.Env[Any, Any], name: str, check: AnswerCheck | None = None) -> None:
        super().__init__(env, name)
        self._look = check
        self._limits = [(leaf, _limit(leaf)) for leaf in space_leaves(env.observation_space)]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Reset the environment.

        Raises:
            EnvStepError: it raised, or answered what it may not.
        """
        observation, info = super().reset(seed=seed, options=options)
        self._refuse(self._wrong_answer(observation, 0.0, False, info))
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step the environment.

        Raises:
            EnvStepError: it raised, or answered what it may not.
        """
        answer = super().step(action)
        observation, reward, terminated, truncated, info = answer
        self._refuse(self._wrong_answer(observation, reward, terminated or truncated, info))
        return answer

    def _wrong_answer(
        self, observation: Any, reward: float, ended: bool, info: dict[str, Any]
    ) -> str | None:
        if not abs(reward) <= _LARGEST:  # which NaN is not either
            return f"its reward is {reward}, expected a finite float32"
        for leaf, limit in self._limits:
            wrong = _wrong_leaf(leaf, limit, np.asarray(take(observation, leaf.path)))
            if wrong is not None:
                return wrong
        if self._look is None or ended:  # no action is chosen from an episode's last observation
            return None
        return self._look(self.action_space, observation, info)

    def _refuse(self, wrong: str | None) -> None:
        if wrong is not None:
            raise self._error(wrong)


_LARGEST = float(np.finfo(np.float32).max)
"""Rewards and observations are float32 to the networks."""


def _limit(leaf: Leaf) -> Any:
    """Return the largest number that stays finite on its way to the network; None: any does."""
    dtype = leaf.space.dtype
    if dtype is None or dtype.kind != "f" or 0 in (leaf.space.shape or ()):
        return None
    # not a Python number, which would overflow beside a float16
    return min(np.finfo(dtype).max, np.finfo(np.float32).max)


def _wrong_leaf(leaf: Leaf, limit: Any, values: np.ndarray[Any, Any]) -> str | None:
    if not isinstance(leaf.space, spaces.Box):
        found = wrong_observation(leaf, values[None], 1)
        if found is not None:
            return found[1]
    if limit is not None and not np.abs(values).max() <= limit:  # which NaN is not either
        of = f" {leaf.name!r}" if leaf.path else ""
        return f"its observation{of} is not finite, or too large for {limit.dtype}"
    return None
