"""What the vector environments that compute all episodes at once have in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

Array = npt.NDArray[Any]


class BatchedVectorEnv(VectorEnv[Array, Array, Array]):
    """Keep the clocks of `B` episodes: time limit, autoreset, `final_obs` as Gymnasium's own.

    Like `gymnasium.vector.SyncVectorEnv` in what `reset` and `step` return, in all three autoreset
    modes and in `options={"reset_mask": ...}`; other reset options hold for that one reset only.
    The environments share one random generator, so seed s does not start them where the seeds
    s, s + 1, ... start those of a SyncVectorEnv.

    Args:
        num_envs: Number of environments, `B`.
        observation_space: Of one environment, a Box of shape `[D]`.
        action_space: Of one environment.
        max_episode_steps: Truncate after so many steps; None: never.
        autoreset_mode: When a finished episode restarts.
        render_mode: Kept as an attribute.
    """

    def __init__(
        self,
        num_envs: int,
        observation_space: spaces.Box,
        action_space: spaces.Discrete[Any],
        max_episode_steps: int | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        self.num_envs = num_envs
        self.render_mode = render_mode
        self.single_observation_space = observation_space
        self.single_action_space = action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}
        self._max_steps = np.iinfo(np.int64).max if max_episode_steps is None else max_episode_steps
        self._elapsed = np.zeros(num_envs, dtype=np.int64)
        self._done = np.zeros(num_envs, dtype=np.bool_)
        self._started = False

    @abstractmethod
    def _begin(self, mask: npt.NDArray[np.bool_], options: dict[str, Any]) -> None:
        """Draw the initial states of the environments in `mask [B]` from `self.np_random`."""

    @abstractmethod
    def _advance(self, actions: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
        """Move every state by one step; `self._elapsed` already counts it.

        Returns:
            New arrays of rewards and terminations, `[B]` each.
        """

    @abstractmethod
    def _observe(self) -> Array:
        """Return a new array with the observations of all environments, `[B, D]`."""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Start new episodes, in all environments or in those of `options["reset_mask"]`.

        Returns:
            Observations `[B, D]` of all environments, and an empty info.

        Raises:
            ValueError: The mask is no bool array `[B]`, or selects nothing.
        """
        super().reset(seed=seed)
        options = dict(options or {})
        mask = options.pop("reset_mask", None)
        if mask is None:
            mask = np.ones(self.num_envs, dtype=np.bool_)
        elif not (
            isinstance(mask, np.ndarray)
            and mask.shape == (self.num_envs,)
            and mask.dtype == np.bool_
            and mask.any()
        ):
            raise ValueError(
                f"options['reset_mask'] is {mask!r}, expected a bool array of shape "
                f"({self.num_envs},) with at least one True"
            )
        self._restart(mask, options)
        self._done &= ~mask
        self._started = True
        return self._observe(), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Take `actions [B]` in all environments.

        Returns:
            Observations `[B, D]`, rewards, terminations and truncations `[B]`, and the info; in
            SAME_STEP mode with `final_obs` (objects, `[B]`) and its mask `_final_obs`.

        Raises:
            ResetNeeded: There is no episode to step in: before the first reset, or, in DISABLED
                mode, where an episode is over.
        """
        if not self._started:
            raise ResetNeeded("call reset before the first step")
        if self.autoreset_mode is AutoresetMode.DISABLED and self._done.any():
            raise ResetNeeded(
                f"the episodes of environments {np.flatnonzero(self._done).tolist()} are over: "
                "call reset(options={'reset_mask': terminated | truncated}) before the next step"
            )
        self._elapsed += 1
        rewards, terminated = self._advance(actions)
        truncated = self._elapsed >= self._max_steps
        if self.autoreset_mode is AutoresetMode.NEXT_STEP and self._done.any():
            self._restart(self._done, {})
            rewards[self._done] = 0.0
            terminated[self._done] = False
            truncated[self._done] = False
        self._done = terminated | truncated
        observations = self._observe()
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._done.any():
            infos = self._final(observations)
            self._restart(self._done, {})
            observations = self._observe()
        return observations, rewards, terminated, truncated, infos

    def _restart(self, mask: npt.NDArray[np.bool_], options: dict[str, Any]) -> None:
        self._elapsed[mask] = 0
        self._begin(mask, options)

    def _final(self, observations: Array) -> dict[str, Any]:
        """The last observations of the finished episodes, in the form of SyncVectorEnv."""
        final_obs = np.full(self.num_envs, None, dtype=object)
        for index in np.flatnonzero(self._done):
            final_obs[index] = observations[index]
        return {
            "final_obs": final_obs,
            "_final_obs": self._done.copy(),
            "final_info": {},
            "_final_info": self._done.copy(),
        }
