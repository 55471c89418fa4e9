"""What the memory tasks share: two known returns, and their form as a single environment."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from xlstm_rl.envs.tasks.batched import BatchedVectorEnv


class TaskVectorEnv(BatchedVectorEnv):
    """A vector environment with a choice of actions and known returns of the best policies."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012
    single_action_space: spaces.Discrete[Any]

    @property
    @abstractmethod
    def optimal_return(self) -> float:
        """The mean return of the best policy."""

    @property
    @abstractmethod
    def memoryless_return(self) -> float:
        """The mean return of the best policy that sees the present observation alone."""


class SingleTask(gym.Env[Any, Any]):
    """One environment of a task that is written for many at once.

    Args:
        render_mode: None; there is nothing to see.
        kwargs: Arguments of the task, and `device`.

    Raises:
        ValueError: An argument has a value it cannot have.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012
    vector_form: ClassVar[type[TaskVectorEnv]]

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        self.render_mode = render_mode
        # Any: the classes that stand here take more than the base does.
        make: Any = self.vector_form
        self.vector: TaskVectorEnv = make(
            num_envs=1, autoreset_mode=AutoresetMode.DISABLED, **{**kwargs, "tensors": False}
        )
        self.observation_space = self.vector.single_observation_space
        self.action_space = self.vector.single_action_space

    @property
    def optimal_return(self) -> float:
        """The mean return of the best policy."""
        return self.vector.optimal_return

    @property
    def memoryless_return(self) -> float:
        """The mean return of the best policy that sees the present observation alone."""
        return self.vector.memoryless_return

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode; there are no options."""
        super().reset(seed=seed)
        observations, info = self.vector.reset(seed=seed)
        return observations[0], info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Take one action.

        Raises:
            ResetNeeded: The episode is over, or none has begun.
            ValueError: The action is outside of its space.
        """
        if not self.action_space.contains(action):
            last = self.vector.single_action_space.n - 1
            raise ValueError(f"the action is {action!r}, expected a whole number from 0 to {last}")
        observations, rewards, terminated, truncated, info = self.vector.step(np.array([action]))
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info
