"""Images without what never moves in them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from xlstm_rl.envs.spaces.leaves import Array


class WithoutBackground(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Show how far each pixel is from where the episode's first image had it: `|image - first|`.

    In many games a few pixels move before a picture that does not, and of which a network sees
    almost nothing else: Pong's ball is 0.1 % of its image. Behind this wrapper it is most of what
    is there. The first image of an episode is black, and what stood still then and moved later
    leaves its outline. No image before the first one of the episode plays a part.

    Args:
        env: Environment whose observations are images: a Box of uint8, of any shape.

    Raises:
        ValueError: The observations are not a Box of uint8.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        space = env.observation_space
        if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
            raise ValueError(f"the observation space is {space}: expected a Box of uint8, an image")
        span = int(space.high.max()) - int(space.low.min())
        self.observation_space = spaces.Box(0, span, space.shape, np.uint8)
        self._first: Array | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode; its first image is the background."""
        image, info = self.env.reset(seed=seed, options=options)
        self._first = np.array(image, dtype=np.int16)  # a copy, wide enough for differences
        return self.observation(image), info

    def observation(self, observation: Any) -> Any:
        """Return the difference of an image from the first one, in uint8."""
        return np.abs(observation - self._first).astype(np.uint8)
