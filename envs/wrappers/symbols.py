"""Arrays of codes, such as a grid of objects and colours, read as choices instead of as numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from xlstm_rl.envs.arguments import json_form
from xlstm_rl.options.arguments import whole_number


class Symbols(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Read an array of codes `[..., C]` as MultiDiscrete: each code is a choice, not a number.

    MiniGrid shows a cell as three bytes: which object, which colour, which state. They look like an
    image of three channels, but the key (5) is no brighter than the wall (2).

    Args:
        env: Environment whose observations are a Box of integers of shape `[..., C]`.
        sizes: How many codes each of the `C` last entries has; codes run from 0.

    Raises:
        ValueError: The observations are not such an array, the sizes do not fit, or a code is too
            large.
    """

    def __init__(self, env: gym.Env[Any, Any], sizes: Sequence[int]) -> None:
        RecordConstructorArgs.__init__(self, sizes=json_form(sizes))
        gym.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        if (
            not isinstance(space, spaces.Box)
            or space.dtype is None
            or space.dtype.kind not in "iu"
            or not space.shape
            or space.shape[-1] != len(sizes)
        ):
            raise ValueError(
                f"the observation space is {space}: expected a Box of integers whose last axis has "
                f"length {len(sizes)}, one entry for each of sizes {list(sizes)}"
            )
        whole = [whole_number(size) for size in sizes]
        if any(size is None or size < 1 for size in whole):
            raise ValueError(f"sizes {list(sizes)}: expected integers >= 1")
        self._sizes = np.broadcast_to(np.asarray(whole, dtype=np.int64), space.shape)
        self.observation_space = spaces.MultiDiscrete(self._sizes.reshape(-1))

    def observation(self, observation: Any) -> Any:
        """Return the codes of `observation [..., C]` in one row of int64."""
        codes = np.asarray(observation, dtype=np.int64)
        if (codes < 0).any() or (codes >= self._sizes).any():
            worst = np.argwhere((codes < 0) | (codes >= self._sizes))[0]
            raise ValueError(
                f"code {codes[tuple(worst)]} at {worst.tolist()}: expected 0 to "
                f"{self._sizes[tuple(worst)] - 1}; set sizes to the number of codes"
            )
        return codes.reshape(-1)
