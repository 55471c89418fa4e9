"""What the memory tasks share: two known returns, a picture, their form as one environment."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from typing import Any, ClassVar, TypedDict

import gymnasium as gym
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from typing_extensions import Unpack

from xlstm_rl.envs.tasks.batched import BatchedVectorEnv
from xlstm_rl.envs.tasks.drawing import Image, picture
from xlstm_rl.options.arguments import check_whole

_METADATA: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}


class TaskOptions(TypedDict, total=False):
    """What every task's vector form takes beside its own arguments."""

    max_episode_steps: int | None
    """Truncate after so many steps; None: never."""

    autoreset_mode: AutoresetMode | str
    """When a finished episode restarts; SAME_STEP by default."""

    render_mode: str | None
    """None or "rgb_array"."""

    device: torch.device | str
    """Where the states are."""

    tensors: bool
    """Take and return tensors instead of NumPy arrays."""


class TaskVectorEnv(BatchedVectorEnv):
    """A vector environment with a choice of actions and known returns of the best policies.

    In pictures, dim colours are what the agent does not see at that step.

    Args:
        num_envs: Number of environments, `B`.
        observation_space: Of one environment.
        action_space: Of one environment.
        options: Passed on from whoever makes the task.
    """

    metadata = _METADATA
    single_action_space: spaces.Discrete[Any]

    def __init_subclass__(cls) -> None:
        """Say in the signature what a task's `**options` are, which only types would tell."""
        super().__init_subclass__()
        _, *parameters = inspect.signature(cls.__init__).parameters.values()
        if parameters[-1].name == "options":
            usual = inspect.signature(BatchedVectorEnv).parameters
            options = [usual[name] for name in TaskOptions.__annotations__]
            parameters[-1:] = [one.replace(kind=one.KEYWORD_ONLY) for one in options]
        cls.__signature__ = inspect.Signature(parameters)

    __signature__: ClassVar[inspect.Signature]

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Discrete[Any],
        **options: Unpack[TaskOptions],
    ) -> None:
        render_mode = options.get("render_mode")
        if render_mode not in (None, *_METADATA["render_modes"]):
            raise ValueError(f"render_mode={render_mode!r}: expected None or 'rgb_array'")
        super().__init__(num_envs, observation_space, action_space, **options)

    @property
    @abstractmethod
    def optimal_return(self) -> float:
        """The mean return of the best policy."""

    @property
    @abstractmethod
    def memoryless_return(self) -> float:
        """The mean return of the best policy that sees the present observation alone."""

    @property
    @abstractmethod
    def longest_episode(self) -> int:
        """The most steps that an episode can have."""

    @abstractmethod
    def _cells(self, row: int) -> Image:
        """Return the coloured cells `[R, C, 3]` that show environment `row`."""

    def render(self) -> tuple[Image, ...] | None:
        """Return one RGB image `[256, 256, 3]` per environment; None without a render mode."""
        if self.render_mode is None:
            return None
        return tuple(
            picture(self._cells(row), int(self.elapsed[row]) / self.longest_episode)
            for row in range(self.num_envs)
        )


class SingleTask(gym.Env[Any, Any]):
    """One environment of a task that is written for many at once.

    Args:
        render_mode: None or "rgb_array".
        kwargs: Arguments of the task, and `device`.

    Raises:
        ValueError: An argument has a value it cannot have.
    """

    metadata = _METADATA
    vector_form: ClassVar[type[TaskVectorEnv]]

    def __init__(self, render_mode: str | None = None, **kwargs: Any) -> None:
        self.render_mode = render_mode
        # Any: the classes that stand here take more than the base does.
        make: Any = self.vector_form
        self.vector: TaskVectorEnv = make(
            num_envs=1,
            autoreset_mode=AutoresetMode.DISABLED,
            render_mode=render_mode,
            **{**kwargs, "tensors": False},
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
        seed = None if seed is None else check_whole("seed", seed, 0)
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
            raise ValueError(f"the action is {action!r}, must be an integer from 0 to {last}")
        observations, rewards, terminated, truncated, info = self.vector.step(np.array([action]))
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> Any:
        """Return an RGB image `[256, 256, 3]`; None without a render mode."""
        images = self.vector.render()
        return None if images is None else images[0]
