"""Observations without some of their components, such as velocities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from xlstm_rl.envs.arguments import json_form
from xlstm_rl.envs.spaces.leaves import Array
from xlstm_rl.options.arguments import whole_number


class NoVelocity(gym.ObservationWrapper[Array, Any, Array], RecordConstructorArgs):
    """Remove components from the observation `[D]` and from its space.

    Args:
        env: Environment whose observations are a Box of shape `[D]`.
        velocities: Indices of the components to remove.

    Raises:
        ValueError: The observations are not a vector, an index is out of range, or nothing is left.
    """

    def __init__(self, env: gym.Env[Array, Any], velocities: Sequence[int]) -> None:
        RecordConstructorArgs.__init__(self, velocities=json_form(velocities))
        gym.ObservationWrapper.__init__(self, env)
        self.observation_space, self._kept = drop_components(env.observation_space, velocities)

    def observation(self, observation: Array) -> Array:
        """Return what is kept of `observation [D]`, a new array."""
        return observation[self._kept]


def drop_components(
    space: gym.Space[Any], dropped: Sequence[int]
) -> tuple[spaces.Box, npt.NDArray[np.intp]]:
    """Return a vector space without the components `dropped`, and the indices that are left.

    Raises:
        ValueError: The space is not a vector, an index is outside of it, or nothing is left.
    """
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"the observation space is {space}: expected a Box of one dimension")
    size = space.shape[0]
    whole = [whole_number(index) for index in dropped]
    if any(index is None or not 0 <= index < size for index in whole):
        raise ValueError(f"components {list(dropped)} to remove: expected indices below {size}")
    kept = np.setdiff1d(np.arange(size), np.asarray(whole, dtype=np.intp))
    if kept.size == 0:
        raise ValueError(f"removing components {list(dropped)} leaves nothing of the observation")
    return spaces.Box(space.low[kept], space.high[kept], dtype=space.dtype.type), kept
